// things NAME…: makes each of them, then counts aloud as long as all of them are as they should be.
#include "things.h"

static const struct thing *const ALL[] = {files, descriptors, processes, memory, sockets, impossible};

bool moves(struct mover *mover, long now, long n) {
    if (now != mover->last) *mover = (struct mover){now, n};
    return n - mover->since < 60;
}

void await_first(const volatile long *moves) {
    for (int i = 0; i < 10000 && !*moves; i++) usleep(1000);
    NEED(*moves);
}

pid_t child(void) {
    pid_t parent = getpid(), pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
    }
    return pid;
}

void *shared_page(void) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(page != MAP_FAILED);
    return page;
}

static const struct thing *find(const char *name) {
    for (size_t group = 0; group < sizeof ALL / sizeof *ALL; group++)
        for (const struct thing *thing = ALL[group]; thing->name; thing++)
            if (!strcmp(thing->name, name)) return thing;
    return NULL;
}

int main(int count, char **names) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct thing *chosen[count];
    for (int i = 1; i < count; i++) {
        chosen[i] = find(names[i]);
        if (!chosen[i]) {
            printf("BROKEN there is no thing called %s\n", names[i]);
            return 1;
        }
        chosen[i]->make();
    }
    for (long n = 1;; n++) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 50000000;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
        for (int i = 1; i < count; i++) {
            errno = 0;
            const char *wrong = chosen[i]->look ? chosen[i]->look(n) : NULL;
            if (wrong) {
                printf("BROKEN %s: it is not so that %s (%s)\n", names[i], wrong, strerror(errno));
                return 1;
            }
        }
        printf("%ld\n", n);
    }
}
