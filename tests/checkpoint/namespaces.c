// Namespaces that processes have made.
#include "check.h"
#include <sys/utsname.h>

static void is_called(const char *host, const char *domain) {
    struct utsname name;
    CHECK(!uname(&name));
    STR_EQ(name.nodename, host);
    STR_EQ(name.domainname, domain);
}

TEST(names_of_a_namespace_that_two_share) {
    struct utsname before;
    CHECK(!uname(&before));
    CHECK(!unshare(CLONE_NEWUTS) && !sethostname("inner", 5) && !setdomainname("of.it", 5));
    int ends[2], status;
    CHECK(!pipe(ends));
    pid_t child = fork();
    if (!child) {
        char byte;
        AWAIT();
        is_called("inner", "of.it");
        CHECK(!sethostname("changed", 7) && read(ends[0], &byte, 1) == 1);
        _exit(0);
    }
    pid_t other = fork();
    if (!other) {
        CHECK(!unshare(CLONE_NEWUTS) && !sethostname("third", 5));
        RESTORED();
        is_called("third", "of.it");
        _exit(0);
    }
    AWAIT();
    for (struct utsname name; !uname(&name) && strcmp(name.nodename, "changed");)
        usleep(1000);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    CHECK(waitpid(child, &status, 0) == child && !status);
    CHECK(waitpid(other, &status, 0) == other && !status);
    is_called("changed", "of.it");
}
