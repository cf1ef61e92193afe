// What is read and written: buffers with contents that somebody parses, vectors of them, messages with control data.
#pragma once
#include "descriptors.h"
#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/inet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/uio.h>

static size_t numbers(struct thread *t, char *out, size_t most) {
    size_t n = rnd(t, (uint32_t)most / 8 + 1) * 8;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t value = rnd(t, 3) ? small(t) : word(t);
        memcpy(out + i, &value, 8);
    }
    return n;
}

// A request of rtnetlink or sock_diag with attributes, whose lengths are mostly right.
static size_t netlink_request(struct thread *t, char *out) {
    struct nlmsghdr *head = (void *)out;
    static const uint16_t types[] = {
        RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE,
        RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH, RTM_GETRULE, RTM_GETQDISC, SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY, NLMSG_NOOP, NLMSG_DONE,
    };
    size_t size = NLMSG_HDRLEN + PICK(t, ((size_t[]){sizeof(struct ifinfomsg), sizeof(struct ifaddrmsg), sizeof(struct rtmsg), sizeof(struct inet_diag_req_v2), 1, 0, 24}));
    memset(out, 0, 512);
    numbers(t, out + NLMSG_HDRLEN, 64);
    out[NLMSG_HDRLEN] = PICK(t, ((char[]){AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX, AF_PACKET, AF_NETLINK}));
    uint32_t attributes = rnd(t, 4);
    while (attributes-- && size < 300) {
        struct rtattr *attribute = (void *)(out + NLMSG_ALIGN(size));
        size_t inside = PICK(t, ((size_t[]){0, 1, 4, 4, 4, 8, 16, 20}));
        attribute->rta_type = (uint16_t)(rnd(t, 8) ? rnd(t, 40) : word(t));
        attribute->rta_len = (uint16_t)(one_in(t, 10) ? edge(t) : RTA_LENGTH(inside));
        uint32_t value = one_in(t, 2) ? htonl(INADDR_LOOPBACK) : (uint32_t)small(t);
        memcpy(RTA_DATA(attribute), &value, 4);
        size = NLMSG_ALIGN(size) + RTA_LENGTH(inside);
    }
    head->nlmsg_len = (uint32_t)(one_in(t, 10) ? edge(t) : size);
    head->nlmsg_type = one_in(t, 20) ? (uint16_t)word(t) : PICK(t, types);
    head->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | PICK(t, ((int[]){0, NLM_F_ACK, NLM_F_DUMP, NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE, 0xff})));
    return size;
}

// A list of POSIX.1e as xattrs have it.
static size_t access_list(struct thread *t, char *out) {
    uint32_t version = one_in(t, 6) ? (uint32_t)word(t) : 2, count = rnd(t, 6);
    memcpy(out, &version, 4);
    for (uint32_t i = 0; i < count; i++) {
        uint16_t tag = PICK(t, ((uint16_t[]){1, 2, 4, 8, 16, 32, 3})), rights = (uint16_t)(rnd(t, 9));
        uint32_t id = rnd(t, 2) ? 0xffffffff : rnd(t, 3);
        memcpy(out + 4 + 8 * i, &tag, 2);
        memcpy(out + 6 + 8 * i, &rights, 2);
        memcpy(out + 8 + 8 * i, &id, 4);
    }
    return 4 + 8 * count - (one_in(t, 10) ? 1 : 0);
}

static size_t contents(struct thread *t, char *out) {
    static const char *const texts[] = {
        "0", "1", "2\n", "-1", "1000", "4294967295", "18446744073709551615", "99999999999999999999", "0x10", " 7 ", "a", "\n", "", "0 0 1", "0 0 4294967295\n",
        "0 1000 1\n1 2000 1\n", "0 0 0", "4096 87380 6291456", "1024\t2048", "core.%p", "|/bin/fuzz", "deny", "allow", "0-3", "#!/bin/fuzz\n", "\3\4\21\23\32\177",
        "name\0with", "\1\0\0\0\0\0\0\0", "3", "max", "user.x",
    };
    switch (rnd(t, 8)) {
    case 0: case 1: { const char *text = PICK(t, texts); size_t n = strlen(text); memcpy(out, text, n); return n; }
    case 2: case 3: return netlink_request(t, out);
    case 4: return access_list(t, out);
    case 5: memset(out, "\n\4ax"[rnd(t, 4)], 4096); return 4096;
    case 6: { int now = inet_addr("127.0.0.1"); memset(out, 0, 64); out[0] = 0x45; out[3] = 40; out[8] = 64; out[9] = PICK(t, ((char[]){1, 6, 17})); memcpy(out + 12, &now, 4); memcpy(out + 16, &now, 4); numbers(t, out + 20, 40); return rnd(t, 64); }
    default: return numbers(t, out, 512);
    }
}

static uint64_t buffer(struct thread *t) {
    char bytes[4200];
    size_t n = contents(t, bytes);
    return placed(t, bytes, n);
}

static size_t vector(struct thread *t, struct iovec *out, uint32_t most) {
    uint32_t n = rnd(t, most + 1);
    for (uint32_t i = 0; i < n; i++) {
        out[i].iov_base = (void *)(rnd(t, 3) ? buffer(t) : output(t, 4096));
        out[i].iov_len = one_in(t, 12) ? edge(t) : length(t) % 70000;
    }
    return n;
}

static uint64_t vectors(struct thread *t) {
    struct iovec all[8] = {0};
    vector(t, all, 8);
    return placed(t, all, sizeof all);
}

// Control data: descriptors, credentials, options of single packets, and lengths that are wrong.
static size_t control_data(struct thread *t, char *out) {
    size_t size = 0;
    for (uint32_t i = 1 + rnd(t, 3); i > 0; i--) {
        struct cmsghdr *one = (void *)(out + size);
        size_t inside = PICK(t, ((size_t[]){0, 1, 4, 4, 8, 12, 12, 16, 20}));
        one->cmsg_level = PICK(t, ((int[]){SOL_SOCKET, SOL_SOCKET, SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, SOL_NETLINK}));
        one->cmsg_type = (int)(one->cmsg_level == SOL_SOCKET ? 1 + rnd(t, 3) : small(t));
        one->cmsg_len = one_in(t, 8) ? edge(t) : CMSG_LEN(inside);
        int values[5] = {3 + (int)rnd(t, SLOTS), 3 + (int)rnd(t, SLOTS), (int)small(t), (int)small(t), 0};
        if (one->cmsg_type == SCM_CREDENTIALS && rnd(t, 2)) {
            values[0] = (int)getpid();
            values[1] = values[2] = 0;
        }
        memcpy(CMSG_DATA(one), values, sizeof values);
        size += CMSG_SPACE(inside);
    }
    return size;
}

static struct msghdr message(struct thread *t) {
    struct iovec parts[4] = {0};
    struct sockaddr_storage address;
    char control[256] = {0};
    struct msghdr out = {0};
    out.msg_iovlen = vector(t, parts, 4);
    out.msg_iov = (void *)placed(t, parts, sizeof parts);
    if (rnd(t, 2)) {
        out.msg_namelen = socket_address(t, &address);
        out.msg_name = (void *)placed(t, &address, sizeof address);
    }
    if (rnd(t, 2)) {
        out.msg_controllen = control_data(t, control);
        out.msg_control = (void *)placed(t, control, sizeof control);
    }
    switch (rnd(t, 12)) {
    case 0: out.msg_iovlen = edge(t); break;
    case 1: out.msg_controllen = edge(t); break;
    case 2: out.msg_namelen = (socklen_t)edge(t); break;
    }
    out.msg_flags = (int)bits(t);
    return out;
}

static uint64_t one_message(struct thread *t) {
    struct msghdr all = message(t);
    return placed(t, &all, sizeof all);
}

static uint64_t some_messages(struct thread *t) {
    struct mmsghdr all[3] = {{message(t), 0}, {message(t), 0}, {message(t), 0}};
    return placed(t, all, sizeof all);
}

// A program of classic BPF, mostly one that passes the checks.
static uint64_t filter_program(struct thread *t) {
    struct sock_filter code[12];
    uint32_t n = 1 + rnd(t, 11);
    for (uint32_t i = 0; i < n; i++)
        code[i] = (struct sock_filter){
            PICK(t, ((uint16_t[]){0x20, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1, 0x00, 0x01, 0x02, 0x03, 0x60, 0x61, 0x04, 0x0c, 0x14, 0x24, 0x34, 0x3c, 0x54, 0x64, 0x6c, 0x74, 0x7c, 0x84, 0x94, 0x9c, 0xa4, 0x05, 0x15, 0x1d, 0x25, 0x35, 0x45, 0x07, 0x87, 0x06, 0x16})),
            (uint8_t)rnd(t, 4), (uint8_t)rnd(t, 4), (uint32_t)(rnd(t, 2) ? rnd(t, 16) * 4 : edge(t))};
    code[n - 1] = (struct sock_filter){0x06, 0, 0, PICK(t, ((uint32_t[]){0x7fff0000, 0x7fff0000, 0x7fff0000, 0x7ffc0000, 0x50001, 0xffff, 0, 64}))};
    struct sock_fprog all = {(uint16_t)(one_in(t, 8) ? edge(t) : n), (void *)placed(t, code, sizeof code)};
    return placed(t, &all, sizeof all);
}
