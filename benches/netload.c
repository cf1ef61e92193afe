// Loads a network: `netload serve` in a container, `netload WHAT ADDRESS SECONDS CONNECTIONS` in another one; prints one number.
//
//   to, from    bytes a second to the server and from it, over so many streams
//   packets     datagrams of 64 bytes a second that the server gets
//   answers     answers a second to one byte each, one after another
//   connects    connections a second, each opened and closed, one after another
//   http PATH   requests a second, over connections that stay
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SINK = 7001, SOURCE, ECHO, CLOSE, DATAGRAMS, COUNT };

static atomic_long counted;
static double until;
static struct sockaddr_in server;
static const char *path;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

// Waits until the server is there.
static void wait_for(int port) {
    for (int i = 0; i < 200; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in a = server;
        a.sin_port = htons(port);
        int failed = connect(fd, (struct sockaddr *)&a, sizeof a);
        close(fd);
        if (!failed)
            return;
        usleep(100000);
    }
    fprintf(stderr, "nobody listens\n");
    exit(1);
}

static int dial(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = server;
    a.sin_port = htons(port);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

// One connection of the server's, until its peer ends it.
static void *serve(void *argument) {
    static char zeros[1 << 17];
    int port = (long)argument >> 32, fd = (int)(long)argument, one = 1;
    char *buffer = malloc(1 << 17);
    ssize_t n = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (n > 0 && port != CLOSE) {
        n = port == SOURCE ? send(fd, zeros, sizeof zeros, MSG_NOSIGNAL) : recv(fd, buffer, 1 << 17, 0);
        if (port == ECHO && n > 0)
            n = send(fd, buffer, n, MSG_NOSIGNAL);
    }
    close(fd);
    free(buffer);
    return NULL;
}

static void *listener(void *argument) {
    int port = (long)argument, fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1000)) {
        perror("listen");
        exit(1);
    }
    for (;;) {
        long peer = accept(fd, NULL, NULL);
        pthread_t t;
        if (peer < 0)
            continue;
        if (port == CLOSE)
            close(peer);
        else if (port == COUNT) {
            // How many datagrams have come.
            long n = counted;
            send(peer, &n, sizeof n, MSG_NOSIGNAL);
            close(peer);
        } else if (!pthread_create(&t, NULL, serve, (void *)((long)port << 32 | peer)))
            pthread_detach(t);
    }
}

static void *datagrams(void *argument) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(DATAGRAMS)};
    char data[2048];
    (void)argument;
    bind(fd, (struct sockaddr *)&a, sizeof a);
    while (recv(fd, data, sizeof data, 0) >= 0)
        counted++;
    return NULL;
}

static void *stream(void *argument) {
    int port = (long)argument, fd = dial(port);
    char *buffer = calloc(1, 1 << 17);
    struct timeval second = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    while (now() < until) {
        ssize_t n = port == SINK ? send(fd, buffer, 1 << 17, MSG_NOSIGNAL) : recv(fd, buffer, 1 << 17, 0);
        if (n > 0)
            counted += n;
    }
    close(fd);
    return NULL;
}

static void *answers(void *argument) {
    int fd = dial(ECHO);
    char byte = 'x';
    (void)argument;
    while (now() < until && send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && recv(fd, &byte, 1, 0) == 1)
        counted++;
    return NULL;
}

static void *connects(void *argument) {
    (void)argument;
    while (now() < until) {
        char byte;
        int fd = dial(CLOSE);
        // The server ends first: TIME_WAIT is its.
        recv(fd, &byte, 1, 0);
        close(fd);
        counted++;
    }
    return NULL;
}

static long asked(void) {
    long n = 0;
    int fd = dial(COUNT);
    if (recv(fd, &n, sizeof n, MSG_WAITALL) != sizeof n)
        exit(1);
    close(fd);
    return n;
}

static void *packets(void *argument) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = server;
    char data[64] = {0};
    (void)argument;
    a.sin_port = htons(DATAGRAMS);
    while (now() < until)
        sendto(fd, data, sizeof data, 0, (struct sockaddr *)&a, sizeof a);
    return NULL;
}

// One connection to a web server: asks, reads the head for the length, and the rest.
static void *http(void *argument) {
    int fd = dial(80);
    char request[256], *buffer = malloc(1 << 17);
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    (void)argument;
    while (now() < until) {
        long have = 0, want = -1;
        if (send(fd, request, len, MSG_NOSIGNAL) != len)
            break;
        while (want < 0 || have < want) {
            ssize_t n = recv(fd, buffer + (want < 0 ? have : 0), (1 << 17) - 1 - (want < 0 ? have : 0), 0);
            if (n <= 0)
                exit(1);
            have += n;
            buffer[want < 0 ? have : n] = 0;
            char *end = want < 0 ? strstr(buffer, "\r\n\r\n") : NULL;
            if (end) {
                char *l = strcasestr(buffer, "content-length: ");
                want = end + 4 - buffer + (l ? atol(l + 16) : 0);
            }
        }
        counted++;
    }
    return NULL;
}

int main(int n, char **v) {
    if (n == 2 && !strcmp(v[1], "serve")) {
        pthread_t t;
        for (long port = SINK; port <= CLOSE; port++)
            pthread_create(&t, NULL, listener, (void *)port);
        pthread_create(&t, NULL, datagrams, NULL);
        listener((void *)(long)COUNT);
    }
    if (n < 5)
        return 2;
    const char *what = v[1];
    double seconds = atof(v[3]);
    int connections = atoi(v[4]);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(v[2])};
    path = n > 5 ? v[5] : "/";
    void *(*work)(void *) = !strcmp(what, "packets") ? packets : !strcmp(what, "answers") ? answers
                          : !strcmp(what, "connects") ? connects : !strcmp(what, "http") ? http : stream;
    wait_for(work == http ? 80 : COUNT);
    long before = work == packets ? asked() : 0;
    pthread_t threads[1024];
    double began = now();
    until = began + seconds;
    for (int i = 0; i < connections && i < 1024; i++)
        pthread_create(&threads[i], NULL, work, (void *)(long)(strcmp(what, "to") ? SOURCE : SINK));
    for (int i = 0; i < connections && i < 1024; i++)
        pthread_join(threads[i], NULL);
    double took = now() - began;
    long done = work == packets ? asked() - before : counted;
    printf("%.0f\n", done / took);
    return 0;
}
