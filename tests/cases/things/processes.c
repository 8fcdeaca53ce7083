// What belongs to a process: its timers, its signals, its children, its rights.
#include "things.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/time.h>

// Timers of all kinds, told by signals whose handlers are kept.
static volatile long interval_ticks, posix_ticks;
static char alternative_stack[65536];
static volatile bool on_alternative_stack;
static timer_t posix_timer;
static void on_interval(int number) {
    char here;
    (void)number;
    interval_ticks++;
    on_alternative_stack = &here >= alternative_stack && &here < alternative_stack + sizeof alternative_stack;
}
static void on_posix(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    if (info->si_value.sival_int == 4711) posix_ticks++;
}
static void make_timers(void) {
    stack_t stack = {.ss_sp = alternative_stack, .ss_size = sizeof alternative_stack};
    struct sigaction interval = {.sa_handler = on_interval, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct sigaction posix = {.sa_sigaction = on_posix, .sa_flags = SA_SIGINFO | SA_RESTART};
    NEED(sigaltstack(&stack, NULL) == 0);
    NEED(sigaction(SIGALRM, &interval, NULL) == 0 && sigaction(SIGRTMIN + 3, &posix, NULL) == 0);
    struct itimerval tick = {{0, 20000}, {0, 20000}};
    NEED(setitimer(ITIMER_REAL, &tick, NULL) == 0);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 4711};
    struct itimerspec often = {{0, 25000000}, {0, 25000000}};
    NEED(timer_create(CLOCK_MONOTONIC, &event, &posix_timer) == 0);
    NEED(timer_settime(posix_timer, 0, &often, NULL) == 0);
}
static const char *look_timers(long n) {
    static struct mover interval, posix;
    SHOULD(moves(&interval, interval_ticks, n));
    SHOULD(on_alternative_stack || interval_ticks == 0);
    SHOULD(moves(&posix, posix_ticks, n));
    return NULL;
}

// Signals that were sent and not taken yet, in their order and with what was sent along.
static void send_two(void) {
    NEED(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 11}) == 0);
    NEED(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 22}) == 0);
}
static sigset_t pending_set(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 5);
    return set;
}
static void make_pending(void) {
    sigset_t set = pending_set();
    NEED(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    send_two();
}
static const char *look_pending(long n) {
    sigset_t set = pending_set();
    siginfo_t info;
    struct timespec now = {0, 0};
    (void)n;
    SHOULD(sigtimedwait(&set, &info, &now) > 0 && info.si_value.sival_int == 11);
    SHOULD(sigtimedwait(&set, &info, &now) > 0 && info.si_value.sival_int == 22);
    SHOULD(sigtimedwait(&set, &info, &now) < 0 && errno == EAGAIN);
    send_two();
    return NULL;
}

// A child that was stopped stays so; one that has ended waits to be asked for; one leads a session.
static pid_t stopped, zombie, leader;
static void make_children(void) {
    if ((stopped = child()) == 0)
        for (;;) pause();
    if ((zombie = child()) == 0) _exit(42);
    if ((leader = child()) == 0) {
        setsid();
        for (;;) pause();
    }
    siginfo_t info;
    NEED(kill(stopped, SIGSTOP) == 0 && waitid(P_PID, (id_t)stopped, &info, WSTOPPED | WNOWAIT) == 0);
    NEED(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT) == 0);
    while (getsid(leader) != leader) usleep(1000);
}
static char state_of(pid_t pid) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    if (fd >= 0) close(fd);
    char *after = strrchr(text, ')');
    return after ? after[2] : '?';
}
static const char *look_children(long n) {
    siginfo_t info = {0};
    (void)n;
    // Who has just woken may see it a moment before it stands still again.
    for (int i = 0; i < 5000 && state_of(stopped) != 'T'; i++) usleep(1000);
    SHOULD(state_of(stopped) == 'T');
    SHOULD(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT | WNOHANG) == 0);
    SHOULD(info.si_pid == zombie && info.si_code == CLD_EXITED && info.si_status == 42);
    SHOULD(getsid(leader) == leader && getpgid(leader) == leader && getppid() != leader);
    return NULL;
}

// Threads with names, masks and memory of their own.
static __thread long own_number;
static volatile long thread_counts[3];
static volatile const char *thread_wrong;
static void *thread(void *argument) {
    long number = (long)argument;
    char name[16], want[16];
    sigset_t set, now;
    own_number = number * 1000;
    snprintf(want, sizeof want, "thread-%ld", number);
    pthread_setname_np(pthread_self(), want);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 7 + (int)number);
    // The timers' signals are the first thread's: it has the other stack.
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (;; usleep(10000)) {
        pthread_getname_np(pthread_self(), name, sizeof name);
        pthread_sigmask(SIG_BLOCK, NULL, &now);
        if (strcmp(name, want)) thread_wrong = "a thread has its name";
        if (!sigismember(&now, SIGRTMIN + 7 + (int)number)) thread_wrong = "a thread has its signal mask";
        if (own_number++ != number * 1000 + thread_counts[number]) thread_wrong = "a thread has its own memory";
        thread_counts[number]++;
    }
    return NULL;
}
static void make_threads(void) {
    pthread_t id;
    for (long number = 0; number < 3; number++) NEED(pthread_create(&id, NULL, thread, (void *)number) == 0);
}
static const char *look_threads(long n) {
    static struct mover movers[3];
    if (thread_wrong) return (const char *)thread_wrong;
    for (int number = 0; number < 3; number++) SHOULD(moves(&movers[number], thread_counts[number], n));
    return NULL;
}

// What a process has said about itself.
static void make_settings(void) {
    struct rlimit files_open = {800, 900}, core = {0, 0};
    NEED(prctl(PR_SET_NAME, "thing") == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    NEED(setrlimit(RLIMIT_NOFILE, &files_open) == 0 && setrlimit(RLIMIT_CORE, &core) == 0);
    NEED(setpriority(PRIO_PROCESS, 0, 5) == 0);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    NEED(fd >= 0 && write(fd, "321", 3) == 3);
    close(fd);
}
static const char *look_settings(long n) {
    struct rlimit got;
    char name[16], text[16] = "";
    int reaper = 0;
    (void)n;
    SHOULD(prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "thing"));
    SHOULD(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper == 1);
    SHOULD(getrlimit(RLIMIT_NOFILE, &got) == 0 && got.rlim_cur == 800 && got.rlim_max == 900);
    SHOULD(getrlimit(RLIMIT_CORE, &got) == 0 && got.rlim_cur == 0 && got.rlim_max == 0);
    SHOULD(getpriority(PRIO_PROCESS, 0) == 5);
    int fd = open("/proc/self/oom_score_adj", O_RDONLY);
    SHOULD(fd >= 0 && read(fd, text, 15) > 0 && atoi(text) == 321);
    close(fd);
    return NULL;
}

// Rights that a child has given away: capabilities (with one that is ambient), system calls, gaining new ones.
struct rights {
    volatile long turns;
    const char *wrong;
};
static struct rights *rights;
static void forbid_uname(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sethostname, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EUNATCH),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(1);
}
static void make_rights(void) {
    const int ambient = CAP_NET_BIND_SERVICE;
    rights = shared_page();
    if (child() != 0) return await_first(&rights->turns);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    data[0].effective = data[0].permitted = data[0].inheritable = 1u << ambient | 1u << CAP_CHOWN;
    if (syscall(SYS_capset, &header, data) || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, ambient, 0, 0)) _exit(1);
    forbid_uname();
    for (;; usleep(20000)) {
        if (syscall(SYS_capget, &header, data) || data[0].permitted != (1u << ambient | 1u << CAP_CHOWN))
            rights->wrong = "a child has the capabilities it kept";
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, ambient, 0, 0) != 1)
            rights->wrong = "a child has its ambient capability";
        if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) rights->wrong = "a child can gain no privileges";
        if (sethostname("x", 1) == 0 || errno != EUNATCH) rights->wrong = "a child's filter holds";
        rights->turns++;
    }
}
static const char *look_rights(long n) {
    static struct mover mover;
    if (rights->wrong) return rights->wrong;
    SHOULD(moves(&mover, rights->turns, n));
    return NULL;
}

// A child that sees other mounts.
static volatile long *inner_turns;
static void make_inner(void) {
    inner_turns = shared_page();
    NEED(mkdir("/tmp/inner", 0755) == 0 || errno == EEXIST);
    if (child() == 0) {
        if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) _exit(1);
        if (mount("inner", "/tmp/inner", "tmpfs", 0, NULL)) _exit(1);
        close(open("/tmp/inner/seen", O_CREAT | O_WRONLY, 0600));
        for (;; usleep(20000))
            if (access("/tmp/inner/seen", F_OK) == 0) ++*inner_turns;
    }
    await_first(inner_turns);
}
static const char *look_inner(long n) {
    static struct mover mover;
    SHOULD(moves(&mover, *inner_turns, n) && access("/tmp/inner/seen", F_OK) != 0);
    return NULL;
}

// Many of them.
enum { CROWD = 200 };
static volatile int *crowd;
static void make_crowd(void) {
    crowd = shared_page();
    for (int i = 0; i < CROWD; i++)
        if (child() == 0)
            for (;; usleep(200000)) crowd[i]++;
}
static const char *look_crowd(long n) {
    static struct mover movers[CROWD];
    for (int i = 0; i < CROWD; i++) SHOULD(moves(&movers[i], crowd[i], n) && (n < 60 || crowd[i] > 0));
    return NULL;
}

const struct thing processes[] = {
    {"timers", make_timers, look_timers},
    {"pending", make_pending, look_pending},
    {"children", make_children, look_children},
    {"threads", make_threads, look_threads},
    {"settings", make_settings, look_settings},
    {"rights", make_rights, look_rights},
    {"crowd", make_crowd, look_crowd},
    {"inner-mounts", make_inner, look_inner},
    {0},
};
