// What CRIU cannot take along: a checkpoint is refused, naming it, and the program goes on.
#include "things.h"

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/un.h>

static void make_io_uring(void) {
    struct io_uring_params parameters = {0};
    NEED(syscall(SYS_io_uring_setup, 4, &parameters) >= 0);
}

static void make_userfaultfd(void) { NEED(syscall(SYS_userfaultfd, O_CLOEXEC) >= 0); }

static void make_perf(void) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes,
                                         .config = PERF_COUNT_SW_CPU_CLOCK, .exclude_kernel = 1};
    NEED(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0) >= 0);
}

static void make_ping(void) {
    // To be asked for at the container: --sysctl net.ipv4.ping_group_range="0 0".
    NEED(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) >= 0);
}

static void make_tcp_backlog(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7100),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), guest = socket(AF_INET, SOCK_STREAM, 0);
    NEED(bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 5) == 0);
    NEED(connect(guest, (void *)&address, sizeof address) == 0);
}

static void make_host_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/host/socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    NEED(fd >= 0 && connect(fd, (void *)&address, sizeof address) == 0);
}

static void make_traced(void) {
    pid_t pid = child();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        for (;;) pause();
    }
    NEED(waitpid(pid, NULL, WUNTRACED) == pid);
}

static void make_mqueue(void) {
    struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 16};
    mqd_t queue = mq_open("/thing", O_CREAT | O_RDWR | O_NONBLOCK, 0600, &attributes);
    NEED(queue >= 0 && mq_send(queue, "waiting", 8, 1) == 0);
}

static void make_closed_mqueue(void) {
    make_mqueue();
    // It goes on to be there without anybody who has it open.
    NEED(close_range(3, ~0u, 0) == 0);
}

static void make_packet_pipe(void) {
    int ends[2];
    NEED(pipe2(ends, O_DIRECT) == 0);
}

static void make_gone_watch(void) {
    int watch = inotify_init(), fd = open("/tmp/watched-file", O_CREAT | O_RDWR, 0600);
    NEED(fd >= 0 && inotify_add_watch(watch, "/tmp/watched-file", IN_MODIFY) > 0 && unlink("/tmp/watched-file") == 0);
}

static void make_namespace(int kind) {
    int ready[2];
    NEED(pipe(ready) == 0);
    if (child() == 0) {
        if (unshare(kind)) printf("BROKEN no namespace: %s\n", strerror(errno));
        // Its own is that of its children only where it is one of processes.
        if (kind == CLONE_NEWPID && fork() != 0) wait(NULL);
        close(ready[1]);
        for (;; pause()) prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    close(ready[1]);
    char byte;
    if (kind != CLONE_NEWPID) NEED(read(ready[0], &byte, 1) == 0);
}
static void make_user_namespace(void) { make_namespace(CLONE_NEWUSER); }
static void make_uts_namespace(void) { make_namespace(CLONE_NEWUTS); }
static void make_ipc_namespace(void) { make_namespace(CLONE_NEWIPC); }
static void make_pid_namespace(void) { make_namespace(CLONE_NEWPID); }

static void make_vfork(void) {
    if (child() == 0) {
        // The parent waits in the kernel until the child has become another program.
        if (vfork() == 0)
            for (;;) pause();
        _exit(0);
    }
    usleep(100000);
}

const struct thing impossible[] = {
    {"io-uring", make_io_uring, NULL},       {"userfaultfd", make_userfaultfd, NULL},
    {"perf", make_perf, NULL},               {"ping", make_ping, NULL},
    {"tcp-backlog", make_tcp_backlog, NULL}, {"host-socket", make_host_socket, NULL},
    {"traced", make_traced, NULL},
    {"mqueue", make_mqueue, NULL},
    {"closed-mqueue", make_closed_mqueue, NULL},
    {"packet-pipe", make_packet_pipe, NULL},
    {"gone-watch", make_gone_watch, NULL},
    {"user-namespace", make_user_namespace, NULL},
    {"uts-namespace", make_uts_namespace, NULL},
    {"ipc-namespace", make_ipc_namespace, NULL},
    {"pid-namespace", make_pid_namespace, NULL},
    {"vfork", make_vfork, NULL},
    {0},
};
