// Memory, and what processes have in common by it.
#include "things.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

// Anonymous memory that a child shares: what one writes the other reads.
static volatile long *ping;
static void make_shared(void) {
    ping = shared_page();
    if (child() == 0)
        for (;; usleep(1000)) ping[1] = ping[0];
}
static const char *look_shared(long n) {
    ping[0] = n;
    for (int i = 0; i < 5000 && ping[1] != n; i++) usleep(1000);
    SHOULD(ping[1] == n);
    return NULL;
}

// Pages that may not be touched, that may only be read, and that are locked.
static char *guarded;
static void make_protected(void) {
    guarded = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(guarded != MAP_FAILED);
    strcpy(guarded + 4096, "only read");
    NEED(mprotect(guarded, 4096, PROT_NONE) == 0 && mprotect(guarded + 4096, 4096, PROT_READ) == 0);
    NEED(mlock(guarded + 2 * 4096, 4096) == 0);
}
static const char *look_protected(long n) {
    int null = open("/dev/zero", O_RDWR);
    (void)n;
    // The kernel touches for us, and says so when it may not.
    SHOULD(null >= 0 && read(null, guarded, 1) < 0 && errno == EFAULT);
    SHOULD(read(null, guarded + 4096, 1) < 0 && errno == EFAULT && !strcmp(guarded + 4096, "only read"));
    close(null);
    char line[256];
    long locked = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "VmLck: %ld", &locked);
    fclose(status);
    SHOULD(locked >= 4);
    return NULL;
}

// System V: a segment, a semaphore, messages that wait.
static int segment, semaphore, queue;
static long *attached;
struct message {
    long kind;
    char text[8];
};
static void send_message(const char *text, long kind) {
    struct message message = {.kind = kind};
    strncpy(message.text, text, sizeof message.text);
    NEED(msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT) == 0);
}
static void make_sysv(void) {
    segment = shmget(0x4711, 8192, IPC_CREAT | 0600), semaphore = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
    queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    NEED(segment >= 0 && semaphore >= 0 && queue >= 0);
    attached = shmat(segment, NULL, 0);
    NEED(attached != (void *)-1 && semctl(semaphore, 1, SETVAL, 5) == 0);
    send_message("first", 1);
    send_message("second", 2);
}
static const char *look_sysv(long n) {
    struct message message;
    attached[700] = n;
    int again = shmget(0x4711, 8192, 0);
    long *view = again >= 0 ? shmat(again, NULL, SHM_RDONLY) : (void *)-1;
    SHOULD(view != (void *)-1 && view[700] == n);
    SHOULD(shmdt(view) == 0);
    SHOULD(semctl(semaphore, 1, GETVAL) == 5);
    SHOULD(msgrcv(queue, &message, sizeof message.text, 2, IPC_NOWAIT) == 8 && !strcmp(message.text, "second"));
    SHOULD(msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT) == 8 && !strcmp(message.text, "first"));
    send_message("first", 1);
    send_message("second", 2);
    return NULL;
}

// A file in /dev/shm that is mapped, and one that is only there.
static long *shm;
static void make_shm(void) {
    int fd = shm_open("/thing", O_CREAT | O_RDWR, 0600), other = shm_open("/other", O_CREAT | O_RDWR, 0600);
    NEED(fd >= 0 && ftruncate(fd, 4096) == 0 && other >= 0 && write(other, "kept", 4) == 4);
    shm = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(shm != MAP_FAILED);
    close(fd), close(other);
}
static const char *look_shm(long n) {
    char text[5] = "";
    long got = 0;
    shm[100] = n;
    int fd = shm_open("/thing", O_RDONLY, 0), other = shm_open("/other", O_RDONLY, 0);
    SHOULD(fd >= 0 && pread(fd, &got, sizeof got, 100 * sizeof got) == sizeof got && got == n);
    SHOULD(other >= 0 && read(other, text, 4) == 4 && !strcmp(text, "kept"));
    close(fd), close(other);
    return NULL;
}

// A mutex that is held and would be freed by the kernel, and a thread that waits for a condition.
static pthread_mutex_t *robust;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long asked, answered;
static void *answerer(void *argument) {
    pthread_mutex_lock(&turn);
    for (;;) {
        while (asked == answered) pthread_cond_wait(&changed, &turn);
        answered = asked;
        pthread_cond_broadcast(&changed);
    }
    return argument;
}
static void make_futexes(void) {
    pthread_mutexattr_t attributes;
    pthread_t id;
    robust = shared_page();
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    NEED(pthread_mutex_init(robust, &attributes) == 0 && pthread_create(&id, NULL, answerer, NULL) == 0);
}
static const char *look_futexes(long n) {
    // Who holds it ends without a word: the kernel says so to the next, by the list that each process has given it.
    static pid_t holder;
    static int *held;
    if (!held) held = shared_page();
    if (!holder) {
        *held = 0;
        holder = child();
        if (holder == 0) {
            pthread_mutex_lock(robust);
            *held = 1;
            for (;;) pause();
        }
        while (!*held) usleep(1000);
    }
    SHOULD(pthread_mutex_trylock(robust) == EBUSY);
    if (n % 40 == 0) {
        kill(holder, SIGKILL);
        waitpid(holder, NULL, 0);
        holder = 0;
        SHOULD(pthread_mutex_lock(robust) == EOWNERDEAD);
        SHOULD(pthread_mutex_consistent(robust) == 0 && pthread_mutex_unlock(robust) == 0);
    }
    pthread_mutex_lock(&turn);
    asked++;
    pthread_cond_broadcast(&changed);
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 10;
    int failed = 0;
    while (answered != asked && !failed) failed = pthread_cond_timedwait(&changed, &turn, &limit);
    pthread_mutex_unlock(&turn);
    SHOULD(!failed);
    return NULL;
}

// The kernel's own asynchronous reading.
static aio_context_t aio;
static int aio_file;
static void make_aio(void) {
    NEED(syscall(SYS_io_setup, 8, &aio) == 0);
    aio_file = open("/tmp/aio", O_CREAT | O_RDWR, 0600);
    NEED(aio_file >= 0 && write(aio_file, "read later", 10) == 10);
}
static const char *look_aio(long n) {
    char got[11] = "";
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)aio_file, .aio_buf = (uintptr_t)got, .aio_nbytes = 10,
        .aio_data = (uint64_t)n,
    };
    struct iocb *list[] = {&request};
    struct io_event event;
    SHOULD(syscall(SYS_io_submit, aio, 1, list) == 1);
    SHOULD(syscall(SYS_io_getevents, aio, 1, 1, &event, NULL) == 1);
    SHOULD(event.data == (uint64_t)n && event.res == 10 && !strcmp(got, "read later"));
    return NULL;
}

// Large pages, where the machine has some.
static char *huge;
static void make_huge(void) {
    huge = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    NEED(huge != MAP_FAILED);
    strcpy(huge + 4096, "large");
}
static const char *look_huge(long n) {
    SHOULD(!strcmp(huge + 4096, "large"));
    huge[0] = (char)n;
    return NULL;
}

// As much memory as the limit allows, nearly.
static unsigned char *much;
enum { MUCH = 24 << 20 };
static unsigned char pattern(size_t at) { return (unsigned char)(at * 2654435761u >> 13); }
static void make_much(void) {
    much = mmap(NULL, MUCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(much != MAP_FAILED);
    for (size_t at = 0; at < MUCH; at += 64) much[at] = pattern(at);
}
static const char *look_much(long n) {
    (void)n;
    for (size_t at = 0; at < MUCH; at += 64) SHOULD(much[at] == pattern(at));
    return NULL;
}

const struct thing memory[] = {
    {"shared", make_shared, look_shared},   {"protected", make_protected, look_protected},
    {"sysv", make_sysv, look_sysv},         {"shm", make_shm, look_shm},
    {"futexes", make_futexes, look_futexes}, {"aio", make_aio, look_aio},
    {"huge", make_huge, look_huge},         {"much", make_much, look_much},
    {0},
};
