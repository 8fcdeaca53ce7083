// Things that a program may have to do with when it is put to sleep: each is made once, and looked at from then on.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct thing {
    const char *name;
    // Makes it; ends the program when that cannot be done.
    void (*make)(void);
    // What is wrong with it; NULL when nothing is. `n` is another number every time.
    const char *(*look)(long n);
};

extern const struct thing files[], descriptors[], processes[], memory[], sockets[], impossible[];

// Ends the program, saying what could not be had.
#define NEED(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("BROKEN %s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno));                        \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

// For `look`: says what is not as it should be.
#define SHOULD(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) return #condition;                                                                           \
    } while (0)

// For `look` at something that moves by itself: wrong when it has not moved for a while.
struct mover {
    long last, since;
};
bool moves(struct mover *mover, long now, long n);

// Waits until something has moved for the first time.
void await_first(const volatile long *moves);

// A child that ends with this program.
pid_t child(void);
// A page that is shared with children.
void *shared_page(void);
