// Settings of /proc/sys that belong to the sandbox's namespaces.
#include "check.h"

// The text of a setting of the network, or what is to be written there.
static void setting(const char *name, char *text, const char *value) {
    char path[100];
    snprintf(path, sizeof path, "/proc/sys/net/%s", name);
    int file = open(path, value ? O_WRONLY : O_RDONLY);
    CHECK(file >= 0);
    if (value) {
        CHECK_EQ(write(file, value, strlen(value)), (ssize_t)strlen(value));
    } else {
        ssize_t n = read(file, text, 99);
        CHECK(n > 0);
        text[n - 1] = 0;
    }
    close(file);
}

TEST(numbers_and_texts_that_were_set) {
    char text[100], other[100];
    setting("ipv4/tcp_keepalive_probes", other, NULL);
    setting("ipv4/ip_unprivileged_port_start", NULL, "81\n");
    setting("ipv4/ip_local_port_range", NULL, "20000 30001");
    setting("ipv4/tcp_keepalive_time", NULL, "7123");
    setting("ipv4/ping_group_range", NULL, "5 9");
    RESTORED();
    setting("ipv4/ip_unprivileged_port_start", text, NULL);
    CHECK(!strcmp(text, "81"));
    setting("ipv4/ip_local_port_range", text, NULL);
    CHECK(!strcmp(text, "20000\t30001"));
    setting("ipv4/tcp_keepalive_time", text, NULL);
    CHECK(!strcmp(text, "7123"));
    setting("ipv4/ping_group_range", text, NULL);
    CHECK(!strcmp(text, "5\t9"));
    setting("ipv4/tcp_keepalive_probes", text, NULL);
    CHECK(!strcmp(text, other));
}
