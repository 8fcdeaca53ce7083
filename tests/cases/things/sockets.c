// Sockets of all kinds, with what is on its way in them.
#include "things.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/un.h>

static struct sockaddr_in local(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}
#define ADDRESS(address) (struct sockaddr *)&(address), sizeof(address)

static int listens(int port) {
    struct sockaddr_in address = local(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    NEED(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    NEED(bind(fd, ADDRESS(address)) == 0 && listen(fd, 20) == 0);
    return fd;
}
static int connects(int port) {
    struct sockaddr_in address = local(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(fd >= 0 && connect(fd, ADDRESS(address)) == 0);
    return fd;
}
static bool passes(int from, int to, long n) {
    long got = 0;
    return send(from, &n, sizeof n, MSG_NOSIGNAL) == sizeof n && recv(to, &got, sizeof got, MSG_WAITALL) == sizeof got &&
           got == n;
}

// A connection with bytes that nobody has read yet, and options that were set.
static int client, server, waiting_client, waiting_server;
static void make_tcp(void) {
    int listener = listens(7001), yes = 1, seconds = 77;
    client = connects(7001), server = accept(listener, NULL, NULL);
    waiting_client = connects(7001), waiting_server = accept(listener, NULL, NULL);
    NEED(send(waiting_client, "on its way", 10, 0) == 10);
    NEED(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    NEED(setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes) == 0);
    NEED(setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds) == 0);
}
static const char *look_tcp(long n) {
    char got[11] = "";
    int value = 0;
    socklen_t size = sizeof value;
    SHOULD(passes(client, server, n) && passes(server, client, n));
    SHOULD(recv(waiting_server, got, 10, MSG_PEEK | MSG_DONTWAIT) == 10 && !strcmp(got, "on its way"));
    SHOULD(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0 && value);
    SHOULD(getsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size) == 0 && value == 77);
    return NULL;
}

// More than the other side takes: the rest waits at the sender.
static int full_sender, full_receiver;
static long sent, received;
static void fill(void) {
    char block[1000];
    for (;;) {
        for (size_t i = 0; i < sizeof block; i++) block[i] = (char)((sent + (long)i) % 251);
        ssize_t put = send(full_sender, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put <= 0) break;
        sent += put;
    }
}
static void make_tcp_full(void) {
    int listener = listens(7002), small = 4096;
    full_sender = connects(7002), full_receiver = accept(listener, NULL, NULL);
    NEED(setsockopt(full_receiver, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    fill();
}
static const char *look_tcp_full(long n) {
    char block[777];
    (void)n;
    ssize_t got = recv(full_receiver, block, sizeof block, 0);
    SHOULD(got > 0);
    for (ssize_t i = 0; i < got; i++) SHOULD(block[i] == (char)((received + i) % 251));
    received += got;
    fill();
    SHOULD(sent > received);
    return NULL;
}

// One side has said its last word and still listens.
static int half_client, half_server;
static void make_tcp_half(void) {
    int listener = listens(7003);
    half_client = connects(7003), half_server = accept(listener, NULL, NULL);
    NEED(send(half_client, "last", 4, 0) == 4 && shutdown(half_client, SHUT_WR) == 0);
}
static const char *look_tcp_half(long n) {
    char got[5] = "";
    SHOULD(recv(half_server, got, 4, MSG_PEEK) == 4 && !strcmp(got, "last"));
    SHOULD(passes(half_server, half_client, n));
    SHOULD(send(half_client, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
    return NULL;
}

// Another family of addresses.
static int client6, server6;
static void make_tcp6(void) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(7004), .sin6_addr = in6addr_loopback};
    int listener = socket(AF_INET6, SOCK_STREAM, 0), yes = 1;
    client6 = socket(AF_INET6, SOCK_STREAM, 0);
    NEED(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    NEED(bind(listener, ADDRESS(address)) == 0 && listen(listener, 5) == 0 && connect(client6, ADDRESS(address)) == 0);
    server6 = accept(listener, NULL, NULL);
}
static const char *look_tcp6(long n) {
    SHOULD(passes(client6, server6, n) && passes(server6, client6, n));
    return NULL;
}

// A hundred connections at once.
static int many[100][2];
static void make_tcp_many(void) {
    int listener = listens(7005);
    for (int i = 0; i < 100; i++) many[i][0] = connects(7005), many[i][1] = accept(listener, NULL, NULL);
}
static const char *look_tcp_many(long n) {
    for (int i = 0; i < 100; i++) SHOULD(passes(many[i][i % 2], many[i][1 - i % 2], n + i));
    return NULL;
}

// Datagrams: bound, connected, with options.
static int udp_server, udp_client;
static void make_udp(void) {
    struct sockaddr_in address = local(7006);
    int yes = 1;
    udp_server = socket(AF_INET, SOCK_DGRAM, 0), udp_client = socket(AF_INET, SOCK_DGRAM, 0);
    NEED(bind(udp_server, ADDRESS(address)) == 0 && connect(udp_client, ADDRESS(address)) == 0);
    NEED(setsockopt(udp_client, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes) == 0);
}
static const char *look_udp(long n) {
    long got = 0;
    SHOULD(send(udp_client, &n, sizeof n, 0) == sizeof n);
    struct pollfd ready = {.fd = udp_server, .events = POLLIN};
    SHOULD(poll(&ready, 1, 5000) == 1 && recv(udp_server, &got, sizeof got, 0) == sizeof got && got == n);
    return NULL;
}

static struct sockaddr_un named(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    return address;
}

// Pairs of the three types, with something in them.
static int pairs[3][2];
static const int TYPES[3] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
static void make_unix_pairs(void) {
    for (int i = 0; i < 3; i++)
        NEED(socketpair(AF_UNIX, TYPES[i], 0, pairs[i]) == 0 && send(pairs[i][0], "first", 5, 0) == 5);
}
static const char *look_unix_pairs(long n) {
    char got[6] = "";
    for (int i = 0; i < 3; i++) {
        SHOULD(recv(pairs[i][1], got, 5, MSG_DONTWAIT) == 5 && !strcmp(got, "first"));
        SHOULD(passes(pairs[i][1], pairs[i][0], n) && send(pairs[i][0], "first", 5, 0) == 5);
    }
    return NULL;
}

// One who listens under a name in the file system, one under a name of the kernel's; somebody comes every time.
static int unix_listener, abstract_listener, unix_client, unix_server;
static void make_unix_names(void) {
    struct sockaddr_un address = named("/tmp/socket"), abstract = {.sun_family = AF_UNIX, .sun_path = "\0thing"};
    unix_listener = socket(AF_UNIX, SOCK_STREAM, 0), abstract_listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink("/tmp/socket");
    NEED(bind(unix_listener, ADDRESS(address)) == 0 && listen(unix_listener, 5) == 0);
    NEED(bind(abstract_listener, ADDRESS(abstract)) == 0 && listen(abstract_listener, 5) == 0);
    unix_client = socket(AF_UNIX, SOCK_STREAM, 0);
    NEED(connect(unix_client, ADDRESS(address)) == 0);
    unix_server = accept(unix_listener, NULL, NULL);
}
static const char *look_unix_names(long n) {
    struct sockaddr_un address = named("/tmp/socket"), abstract = {.sun_family = AF_UNIX, .sun_path = "\0thing"};
    SHOULD(passes(unix_client, unix_server, n) && passes(unix_server, unix_client, n));
    struct {
        int listener;
        struct sockaddr_un *address;
    } both[] = {{unix_listener, &address}, {abstract_listener, &abstract}};
    for (int i = 0; i < 2; i++) {
        int guest = socket(AF_UNIX, SOCK_STREAM, 0);
        SHOULD(connect(guest, ADDRESS(*both[i].address)) == 0);
        int host = accept(both[i].listener, NULL, NULL);
        SHOULD(host >= 0 && passes(guest, host, n));
        close(guest), close(host);
    }
    return NULL;
}

// Somebody has connected to a name and was not let in yet.
static int unaccepting;
static int unaccepted;
static void make_unix_backlog(void) {
    struct sockaddr_un address = named("/tmp/backlog");
    unaccepting = socket(AF_UNIX, SOCK_STREAM, 0), unaccepted = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink("/tmp/backlog");
    NEED(bind(unaccepting, ADDRESS(address)) == 0 && listen(unaccepting, 5) == 0);
    NEED(connect(unaccepted, ADDRESS(address)) == 0);
}
static const char *look_unix_backlog(long n) {
    struct pollfd ready = {.fd = unaccepting, .events = POLLIN};
    SHOULD(poll(&ready, 1, 0) == 1);
    // Now and then it is let in, and the next one knocks.
    if (n % 20 == 0) {
        struct sockaddr_un address = named("/tmp/backlog");
        int host = accept(unaccepting, NULL, NULL);
        SHOULD(host >= 0 && passes(unaccepted, host, n));
        close(host), close(unaccepted);
        unaccepted = socket(AF_UNIX, SOCK_STREAM, 0);
        SHOULD(connect(unaccepted, ADDRESS(address)) == 0);
    }
    return NULL;
}

// A descriptor on its way.
static int carrier[2];
static bool send_descriptor(int fd) {
    char space[CMSG_SPACE(sizeof fd)] = {0}, byte = 'd';
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(carrier[0], &message, 0) == 1;
}
static void make_rights_sent(void) {
    int fd = open("/tmp/sent", O_CREAT | O_RDWR, 0600);
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, carrier) == 0 && fd >= 0 && write(fd, "sent", 4) == 4);
    NEED(send_descriptor(fd));
    close(fd);
}
static const char *look_rights_sent(long n) {
    char space[CMSG_SPACE(sizeof(int))], byte, got[5] = "";
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    int fd = -1;
    (void)n;
    SHOULD(recvmsg(carrier[1], &message, MSG_DONTWAIT) == 1 && CMSG_FIRSTHDR(&message));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    SHOULD(pread(fd, got, 4, 0) == 4 && !strcmp(got, "sent"));
    SHOULD(send_descriptor(fd));
    close(fd);
    return NULL;
}

// The kernel's own words: netlink, and frames as they come.
static int route, packet, raw;
static void make_netlink(void) {
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    NEED(route >= 0 && bind(route, ADDRESS(address)) == 0);
}
static const char *look_netlink(long n) {
    struct {
        struct nlmsghdr header;
        struct rtgenmsg body;
    } ask = {{sizeof ask, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, (uint32_t)n, 0}, {AF_UNSPEC}};
    char got[32768];
    SHOULD(send(route, &ask, sizeof ask, 0) == sizeof ask);
    for (;;) {
        struct pollfd ready = {.fd = route, .events = POLLIN};
        SHOULD(poll(&ready, 1, 5000) == 1);
        ssize_t size = recv(route, got, sizeof got, 0);
        struct nlmsghdr *header = (void *)got;
        SHOULD(size > 0);
        if (header->nlmsg_seq == (uint32_t)n && header->nlmsg_type == NLMSG_DONE) return NULL;
    }
}
static void make_raw(void) {
    packet = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = (int)if_nametoindex("lo")};
    NEED(packet >= 0 && raw >= 0 && bind(packet, ADDRESS(address)) == 0);
}
static const char *look_raw(long n) {
    struct sockaddr_in address = local(9);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    char got[2048];
    (void)n;
    SHOULD(sendto(udp, "frame", 5, 0, ADDRESS(address)) == 5);
    close(udp);
    struct pollfd ready[] = {{.fd = packet, .events = POLLIN}, {.fd = raw, .events = POLLIN}};
    // The datagram, and the word that nobody takes it.
    SHOULD(poll(ready, 1, 5000) == 1 && poll(ready + 1, 1, 5000) == 1);
    while (recv(packet, got, sizeof got, MSG_DONTWAIT) > 0) continue;
    while (recv(raw, got, sizeof got, MSG_DONTWAIT) > 0) continue;
    return NULL;
}

const struct thing sockets[] = {
    {"tcp", make_tcp, look_tcp},
    {"tcp-full", make_tcp_full, look_tcp_full},
    {"tcp-half-closed", make_tcp_half, look_tcp_half},
    {"tcp6", make_tcp6, look_tcp6},
    {"tcp-many", make_tcp_many, look_tcp_many},
    {"udp", make_udp, look_udp},
    {"unix-pairs", make_unix_pairs, look_unix_pairs},
    {"unix-names", make_unix_names, look_unix_names},
    {"unix-backlog", make_unix_backlog, look_unix_backlog},
    {"rights-sent", make_rights_sent, look_rights_sent},
    {"netlink", make_netlink, look_netlink},
    {"raw", make_raw, look_raw},
    {0},
};
