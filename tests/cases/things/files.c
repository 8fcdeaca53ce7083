// Files and what is held of them.
#include "things.h"

static int made(const char *path, const char *text, int flags) {
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | flags, 0644);
    NEED(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static bool holds(int fd, const char *text) {
    char got[64] = "";
    return pread(fd, got, sizeof got - 1, 0) >= 0 && !strcmp(got, text);
}

// Shared mapping: memory and file are one.
static long *mapped;
static int mapped_fd;
static void make_mapped(void) {
    mapped_fd = made("/tmp/mapped", "", 0);
    NEED(ftruncate(mapped_fd, 8192) == 0);
    mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mapped_fd, 0);
    NEED(mapped != MAP_FAILED);
}
static const char *look_mapped(long n) {
    long got = 0;
    mapped[600] = n;
    SHOULD(pread(mapped_fd, &got, sizeof got, 600 * sizeof got) == sizeof got && got == n);
    return NULL;
}

// Private mapping: one page written, one as in the file.
static char *private_map;
static void make_private(void) {
    int fd = made("/tmp/private", "", 0);
    NEED(pwrite(fd, "first", 5, 0) == 5 && pwrite(fd, "second", 6, 4096) == 6);
    private_map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    NEED(private_map != MAP_FAILED);
    memcpy(private_map, "other", 5);
    close(fd);
}
static const char *look_private(long n) {
    (void)n;
    SHOULD(!memcmp(private_map, "other", 5) && !memcmp(private_map + 4096, "second", 6));
    return NULL;
}

// Deleted while open, deleted while mapped.
static int deleted;
static char *deleted_map;
static void make_deleted(void) {
    deleted = made("/tmp/deleted", "still here", 0);
    deleted_map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, deleted, 0);
    NEED(deleted_map != MAP_FAILED && unlink("/tmp/deleted") == 0);
}
static const char *look_deleted(long n) {
    char got;
    SHOULD(lseek(deleted, 0, SEEK_CUR) == 10);
    SHOULD(holds(deleted, "still here"));
    deleted_map[100] = (char)n;
    SHOULD(pread(deleted, &got, 1, 100) <= 0 || got == (char)n);
    return NULL;
}

// Deleted under the name it was opened by, there under another.
static int linked;
static void make_linked(void) {
    linked = made("/tmp/name", "linked", 0);
    unlink("/tmp/other-name");
    NEED(link("/tmp/name", "/tmp/other-name") == 0 && unlink("/tmp/name") == 0);
}
static const char *look_linked(long n) {
    struct stat open_one, named;
    (void)n;
    SHOULD(holds(linked, "linked"));
    SHOULD(fstat(linked, &open_one) == 0 && stat("/tmp/other-name", &named) == 0);
    SHOULD(open_one.st_ino == named.st_ino);
    return NULL;
}

// A directory that was removed while open.
static int gone_directory;
static void make_gone_directory(void) {
    NEED(mkdir("/tmp/gone", 0755) == 0);
    gone_directory = open("/tmp/gone", O_RDONLY | O_DIRECTORY);
    NEED(gone_directory >= 0 && rmdir("/tmp/gone") == 0);
}
static const char *look_gone_directory(long n) {
    struct stat facts;
    (void)n;
    SHOULD(fstat(gone_directory, &facts) == 0 && S_ISDIR(facts.st_mode) && facts.st_nlink == 0);
    SHOULD(access("/tmp/gone", F_OK) != 0);
    return NULL;
}

// Locks of all three kinds, and a lease.
static int flocked, locked, ofd_locked, leased;
static void make_locks(void) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    flocked = made("/tmp/flocked", "", 0), locked = made("/tmp/locked", "", 0), ofd_locked = made("/tmp/ofd", "", 0);
    NEED(syscall(SYS_flock, flocked, 2 /* LOCK_EX */) == 0);
    NEED(fcntl(locked, F_SETLK, &whole) == 0);
    NEED(fcntl(ofd_locked, F_OFD_SETLK, &whole) == 0);
    close(made("/tmp/leased", "", 0));
    leased = open("/tmp/leased", O_RDONLY);
    NEED(leased >= 0 && fcntl(leased, F_SETLEASE, F_RDLCK) == 0);
}
static const char *look_locks(long n) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int other = open("/tmp/flocked", O_RDWR);
    (void)n;
    SHOULD(other >= 0 && syscall(SYS_flock, other, 2 | 4 /* LOCK_EX | LOCK_NB */) != 0 && errno == EWOULDBLOCK);
    close(other);
    other = open("/tmp/ofd", O_RDWR);
    SHOULD(other >= 0 && fcntl(other, F_OFD_SETLK, &whole) != 0 && errno == EAGAIN);
    close(other);
    // A lock of a process is not in its own way: its child looks.
    pid_t pid = fork();
    if (pid == 0) _exit(fcntl(locked, F_GETLK, &whole) != 0 || whole.l_type == F_UNLCK);
    int status;
    SHOULD(waitpid(pid, &status, 0) == pid && status == 0);
    SHOULD(fcntl(leased, F_GETLEASE) == F_RDLCK);
    return NULL;
}

// Descriptors: one offset for two of them, flags, a path without a file behind it, a high number.
static int one, two, append, path, high;
static void make_numbers(void) {
    one = made("/tmp/one", "", 0), two = dup(one);
    append = made("/tmp/append", "", O_APPEND | O_CLOEXEC);
    path = open("/tmp/one", O_PATH);
    high = dup2(one, 700);
    NEED(two >= 0 && append >= 0 && path >= 0 && high == 700);
}
static const char *look_numbers(long n) {
    char byte;
    off_t at = n % 1000;
    SHOULD(lseek(one, at, SEEK_SET) == at && lseek(two, 0, SEEK_CUR) == at && lseek(high, 0, SEEK_CUR) == at);
    SHOULD(fcntl(append, F_GETFD) == FD_CLOEXEC && (fcntl(append, F_GETFL) & O_APPEND));
    SHOULD(fcntl(one, F_GETFD) == 0);
    SHOULD(pread(path, &byte, 1, 0) < 0 && errno == EBADF);
    return NULL;
}

// A thousand files, each open.
enum { THOUSAND = 1000 };
static int thousand[THOUSAND];
static void make_thousand(void) {
    char name[64];
    NEED(mkdir("/tmp/thousand", 0755) == 0);
    for (int i = 0; i < THOUSAND; i++) {
        snprintf(name, sizeof name, "/tmp/thousand/%d", i);
        thousand[i] = made(name, name, 0);
    }
}
static const char *look_thousand(long n) {
    char name[64];
    int i = (int)(n * 37 % THOUSAND);
    snprintf(name, sizeof name, "/tmp/thousand/%d", i);
    SHOULD(holds(thousand[i], name));
    return NULL;
}

// A named pipe with something in it, and a pipe that is full to a byte.
static int named_pipe, pipe_ends[2];
static void make_pipes(void) {
    char much[8000];
    memset(much, 'x', sizeof much);
    NEED(mkfifo("/tmp/fifo", 0600) == 0);
    named_pipe = open("/tmp/fifo", O_RDWR);
    NEED(named_pipe >= 0 && write(named_pipe, "in the pipe", 11) == 11);
    NEED(pipe(pipe_ends) == 0 && fcntl(pipe_ends[0], F_SETPIPE_SZ, 8192) == 8192);
    NEED(write(pipe_ends[1], much, sizeof much) == sizeof much);
}
static const char *look_pipes(long n) {
    char got[8001];
    (void)n;
    SHOULD(read(named_pipe, got, sizeof got) == 11 && !memcmp(got, "in the pipe", 11));
    SHOULD(write(named_pipe, "in the pipe", 11) == 11);
    SHOULD(fcntl(pipe_ends[0], F_GETPIPE_SZ) == 8192);
    SHOULD(read(pipe_ends[0], got, sizeof got) == 8000 && got[7999] == 'x');
    SHOULD(write(pipe_ends[1], got, 8000) == 8000);
    return NULL;
}

// Where a process stands: its directory, its mask, its root.
static volatile long *cell;
static void make_places(void) {
    NEED((mkdir("/tmp/cell", 0755) == 0 || errno == EEXIST) && (mkdir("/tmp/place", 0755) == 0 || errno == EEXIST));
    NEED(chdir("/tmp/place") == 0);
    umask(027);
    cell = shared_page();
    if (child() == 0) {
        if (chroot("/tmp/cell") != 0 || chdir("/") != 0) _exit(1);
        for (;; usleep(20000)) {
            close(open("/inside", O_CREAT | O_WRONLY, 0600));
            if (access("/inside", F_OK) == 0 && access("/bin", F_OK) != 0) ++*cell;
        }
    }
    await_first(cell);
}
static const char *look_places(long n) {
    static struct mover mover;
    char here[64] = "";
    mode_t mask = umask(027);
    SHOULD(mask == 027);
    SHOULD(getcwd(here, sizeof here) && !strcmp(here, "/tmp/place"));
    SHOULD(moves(&mover, *cell, n) && access("/tmp/cell/inside", F_OK) == 0);
    return NULL;
}

const struct thing files[] = {
    {"mapped", make_mapped, look_mapped},
    {"private", make_private, look_private},
    {"deleted", make_deleted, look_deleted},
    {"linked", make_linked, look_linked},
    {"gone-directory", make_gone_directory, look_gone_directory},
    {"locks", make_locks, look_locks},
    {"numbers", make_numbers, look_numbers},
    {"thousand", make_thousand, look_thousand},
    {"pipes", make_pipes, look_pipes},
    {"places", make_places, look_places},
    {0},
};
