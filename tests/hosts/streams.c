// streams serve PORT [RCVBUF]
// streams load ADDRESS PORT FLOWS UP DOWN [RCVBUF]: opens FLOWS connections at once, sends UP bytes over each and gets DOWN bytes,
// compares every byte at both ends, and says how many milliseconds a connection took in the mean. RCVBUF is the receive buffer of each connection.
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FLOWS = 64, CHUNK = 65536 };

// What a connection begins with.
struct head {
    uint32_t seed, padding;
    uint64_t up, down;
};

struct flow {
    int fd, ended, told;
    uint32_t seed;
    double began;
    uint64_t in, in_end, out, out_end;
    struct head head;
    size_t head_got;
};

static struct flow flows[FLOWS];
static int failures;
static double mean;

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

// Bytes of a stream from a position that is a multiple of 4; each direction has its own.
static void fill(uint8_t *to, uint64_t position, size_t size, uint32_t seed) {
    for (size_t i = 0; i < size; i += 4) {
        uint32_t word = (uint32_t)((position + i) / 4) * 2654435761u ^ seed;
        memcpy(to + i, &word, 4);
    }
}

static void finish(struct flow *f, const char *why) {
    if (why) {
        printf("%s, %llu of %llu got, %llu of %llu sent\n", why, (unsigned long long)f->in, (unsigned long long)f->in_end,
               (unsigned long long)f->out, (unsigned long long)f->out_end);
        fflush(stdout);
        failures++;
    }
    mean += now_ms() - f->began;
    close(f->fd);
    f->fd = -1;
}

static void receive(struct flow *f, uint32_t mask) {
    static uint8_t got[CHUNK], want[CHUNK + 8];
    // The head of a served connection comes first.
    if (f->head_got < sizeof f->head) {
        ssize_t n = read(f->fd, (char *)&f->head + f->head_got, sizeof f->head - f->head_got);
        if (n <= 0)
            return finish(f, n < 0 ? strerror(errno) : "no head");
        f->head_got += n;
        if (f->head_got == sizeof f->head) {
            f->seed = f->head.seed;
            f->in_end = f->head.up;
            f->out_end = f->head.down;
        }
        return;
    }
    ssize_t n = recv(f->fd, got, sizeof got, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        return finish(f, strerror(errno));
    if (n == 0) {
        f->ended = 1;
        return f->in == f->in_end ? (void)0 : finish(f, "an early end");
    }
    if (f->in + n > f->in_end)
        return finish(f, "more than was sent");
    uint64_t from = f->in & ~3ull;
    fill(want, from, (f->in - from + n + 3) & ~3ull, f->seed ^ mask);
    if (memcmp(got, want + (f->in - from), n))
        return finish(f, "other bytes");
    f->in += n;
}

static void transmit(struct flow *f, uint32_t mask) {
    static uint8_t data[CHUNK + 8];
    uint64_t from = f->out & ~3ull, left = f->out_end - f->out;
    size_t size = left < CHUNK ? left : CHUNK;
    if (size) {
        fill(data, from, (f->out - from + size + 3) & ~3ull, f->seed ^ mask);
        ssize_t n = send(f->fd, data + (f->out - from), size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            return finish(f, strerror(errno));
        f->out += n;
    }
    if (f->out == f->out_end) {
        f->told = 1;
        if (shutdown(f->fd, SHUT_WR))
            finish(f, strerror(errno));
    }
}

// Carries bytes until no connection is left; `listener` adds some.
static void carry(int listener, uint32_t in_mask, uint32_t out_mask) {
    for (;;) {
        struct pollfd polled[FLOWS + 1];
        struct flow *whose[FLOWS + 1];
        int n = 0, free_slot = -1;
        for (int i = 0; i < FLOWS; i++) {
            struct flow *f = &flows[i];
            if (f->fd < 0) {
                free_slot = i;
                continue;
            }
            int events = f->ended ? 0 : POLLIN;
            // The head says what is to be sent.
            if (f->head_got == sizeof f->head && !f->told)
                events |= POLLOUT;
            whose[n] = f;
            polled[n++] = (struct pollfd){f->fd, events, 0};
        }
        if (listener >= 0 && free_slot >= 0) {
            whose[n] = NULL;
            polled[n++] = (struct pollfd){listener, POLLIN, 0};
        }
        if (n == 0)
            return;
        if (poll(polled, n, -1) < 0)
            die("poll");
        for (int i = 0; i < n; i++) {
            struct flow *f = whose[i];
            if (!f) {
                if (polled[i].revents) {
                    int fd = accept(listener, NULL, NULL);
                    if (fd >= 0)
                        flows[free_slot] = (struct flow){.fd = fd};
                }
                continue;
            }
            if (polled[i].revents & (POLLIN | POLLHUP | POLLERR))
                receive(f, in_mask);
            if (f->fd >= 0 && polled[i].revents & POLLOUT)
                transmit(f, out_mask);
            if (f->fd >= 0 && f->ended && f->told)
                finish(f, NULL);
        }
    }
}

static void limit(int fd, const char *text) {
    int size = atoi(text);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size))
        die("SO_RCVBUF");
}

int main(int argc, char **argv) {
    enum { DOWN_MASK = 0x5a5a5a5a };
    for (int i = 0; i < FLOWS; i++)
        flows[i].fd = -1;
    if (argc >= 3 && !strcmp(argv[1], "serve")) {
        int listener = socket(AF_INET6, SOCK_STREAM, 0), one = 1;
        struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[2]))};
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (argc > 3)
            limit(listener, argv[3]);
        if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, FLOWS))
            die("listen");
        puts("serving");
        fflush(stdout);
        carry(listener, 0, DOWN_MASK);
    }
    if (argc < 7 || strcmp(argv[1], "load")) {
        fprintf(stderr, "what?\n");
        return 2;
    }
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (void *)&address;
    struct sockaddr_in6 *v6 = (void *)&address;
    socklen_t size = sizeof *v4;
    v4->sin_port = htons(atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &v4->sin_addr) == 1) {
        address.ss_family = AF_INET;
    } else if (inet_pton(AF_INET6, argv[2], &v6->sin6_addr) == 1) {
        address.ss_family = AF_INET6;
        size = sizeof *v6;
    } else {
        return 2;
    }
    int count = atoi(argv[4]);
    if (count < 1 || count > FLOWS)
        return 2;
    for (int i = 0; i < count; i++) {
        struct flow *f = &flows[i];
        *f = (struct flow){.fd = socket(address.ss_family, SOCK_STREAM, 0), .seed = 77 + 13 * i, .head_got = sizeof f->head};
        f->began = now_ms();
        f->out_end = strtoull(argv[5], NULL, 0);
        f->in_end = strtoull(argv[6], NULL, 0);
        if (argc > 7)
            limit(f->fd, argv[7]);
        if (connect(f->fd, (struct sockaddr *)&address, size))
            die("connect");
        struct head head = {f->seed, 0, f->out_end, f->in_end};
        if (write(f->fd, &head, sizeof head) != sizeof head)
            die("write");
    }
    carry(-1, DOWN_MASK, 0);
    printf("%.0f ms\n", mean / count);
    return failures > 0;
}
