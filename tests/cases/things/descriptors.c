// Descriptors that are no files: what the kernel makes for a program that asks.
#include "things.h"

#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <termios.h>

// Two things to wait for, one of them always ready.
static int epoll, epoll_pipe[2], counter;
static void make_epoll(void) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    counter = eventfd(7, EFD_NONBLOCK | EFD_SEMAPHORE);
    NEED(epoll >= 0 && counter >= 0 && pipe(epoll_pipe) == 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788};
    NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll_pipe[0], &event) == 0);
    event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u64 = 2};
    NEED(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event) == 0);
}
static const char *look_epoll(long n) {
    struct epoll_event seen[4];
    char byte;
    (void)n;
    int ready = epoll_wait(epoll, seen, 4, 0);
    for (int i = 0; i < ready; i++) SHOULD(seen[i].data.u64 == 2);
    SHOULD(write(epoll_pipe[1], "x", 1) == 1);
    ready = epoll_wait(epoll, seen, 4, 1000);
    SHOULD(ready == 1 && seen[0].data.u64 == 0x1122334455667788 && read(epoll_pipe[0], &byte, 1) == 1);
    return NULL;
}

// What an eventfd holds.
static int seven;
static void make_eventfd(void) {
    seven = eventfd(7, EFD_NONBLOCK);
    NEED(seven >= 0);
}
static const char *look_eventfd(long n) {
    uint64_t got = 0, put = 7;
    (void)n;
    SHOULD(read(seven, &got, 8) == 8 && got == 7 && write(seven, &put, 8) == 8);
    SHOULD(fcntl(seven, F_GETFL) & O_NONBLOCK);
    return NULL;
}

// Signals as descriptors.
static int signals;
static void make_signalfd(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_NONBLOCK);
    NEED(signals >= 0 && kill(getpid(), SIGWINCH) == 0);
}
static const char *look_signalfd(long n) {
    struct signalfd_siginfo info;
    (void)n;
    SHOULD(read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGWINCH);
    SHOULD(kill(getpid(), SIGWINCH) == 0);
    return NULL;
}

// A clock that ticks, and one that will ring in a day.
static int ticking, ringing;
static void make_timerfd(void) {
    struct itimerspec tick = {{0, 30000000}, {0, 30000000}}, day = {{0, 0}, {86400, 0}};
    ticking = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), ringing = timerfd_create(CLOCK_BOOTTIME, 0);
    NEED(timerfd_settime(ticking, 0, &tick, NULL) == 0 && timerfd_settime(ringing, 0, &day, NULL) == 0);
}
static const char *look_timerfd(long n) {
    static struct mover mover;
    static long ticks;
    uint64_t got = 0;
    struct itimerspec left;
    if (read(ticking, &got, 8) == 8) ticks += (long)got;
    SHOULD(moves(&mover, ticks, n));
    SHOULD(timerfd_gettime(ringing, &left) == 0 && left.it_value.tv_sec > 80000 && left.it_value.tv_sec <= 86400);
    return NULL;
}

// Whoever watches a directory sees what is made there.
static int watch;
static void make_inotify(void) {
    NEED(mkdir("/tmp/watched", 0755) == 0 || errno == EEXIST);
    watch = inotify_init1(IN_NONBLOCK);
    NEED(watch >= 0 && inotify_add_watch(watch, "/tmp/watched", IN_CREATE | IN_DELETE) > 0);
}
static const char *look_inotify(long n) {
    char name[64], got[4096];
    snprintf(name, sizeof name, "/tmp/watched/%ld", n);
    // What is told of the sleep itself is not asked for.
    while (read(watch, got, sizeof got) > 0) continue;
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
    SHOULD(fd >= 0 && read(watch, got, sizeof got) > 0);
    struct inotify_event *event = (void *)got;
    SHOULD((event->mask & IN_CREATE) && atol(event->name) == n);
    close(fd);
    unlink(name);
    return NULL;
}

// A file in memory: what it holds, what is forbidden, where it is mapped.
static int memory_file;
static char *memory_map;
static void make_memfd(void) {
    memory_file = memfd_create("thing", MFD_ALLOW_SEALING);
    NEED(memory_file >= 0 && ftruncate(memory_file, 8192) == 0);
    NEED(fcntl(memory_file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    memory_map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file, 0);
    NEED(memory_map != MAP_FAILED);
    strcpy(memory_map + 5000, "in memory");
}
static const char *look_memfd(long n) {
    char got[10] = "";
    SHOULD(pread(memory_file, got, 10, 5000) == 10 && !strcmp(got, "in memory"));
    memory_map[0] = (char)n;
    SHOULD(pread(memory_file, got, 1, 0) == 1 && got[0] == (char)n);
    SHOULD(fcntl(memory_file, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW));
    SHOULD(ftruncate(memory_file, 0) != 0);
    return NULL;
}

// A process by descriptor.
static int process;
static pid_t process_pid;
static void make_pidfd(void) {
    process_pid = child();
    if (process_pid == 0)
        for (;;) pause();
    process = (int)syscall(SYS_pidfd_open, process_pid, 0);
    NEED(process >= 0);
}
static const char *look_pidfd(long n) {
    char path[64], text[512] = "";
    (void)n;
    SHOULD(syscall(SYS_pidfd_send_signal, process, 0, NULL, 0) == 0);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", process);
    int fd = open(path, O_RDONLY);
    SHOULD(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    char *line = strstr(text, "\nPid:\t");
    SHOULD(line && atoi(line + 6) == process_pid);
    return NULL;
}

// A terminal that was made inside, with a window and a mode of its own.
static int master, slave;
static void make_pty(void) {
    struct winsize window = {33, 44, 0, 0};
    struct termios mode;
    NEED(openpty(&master, &slave, NULL, NULL, &window) == 0 && tcgetattr(slave, &mode) == 0);
    cfmakeraw(&mode);
    NEED(tcsetattr(slave, TCSANOW, &mode) == 0);
}
static const char *look_pty(long n) {
    struct winsize window;
    struct termios mode;
    char byte = 0;
    SHOULD(ioctl(master, TIOCGWINSZ, &window) == 0 && window.ws_row == 33 && window.ws_col == 44);
    SHOULD(tcgetattr(slave, &mode) == 0 && !(mode.c_lflag & (ICANON | ECHO)));
    char put = (char)('a' + n % 26);
    SHOULD(write(master, &put, 1) == 1 && read(slave, &byte, 1) == 1 && byte == put);
    return NULL;
}

const struct thing descriptors[] = {
    {"epoll", make_epoll, look_epoll},       {"eventfd", make_eventfd, look_eventfd},
    {"signalfd", make_signalfd, look_signalfd}, {"timerfd", make_timerfd, look_timerfd},
    {"inotify", make_inotify, look_inotify}, {"memfd", make_memfd, look_memfd},
    {"pidfd", make_pidfd, look_pidfd},       {"pty", make_pty, look_pty},
    {0},
};
