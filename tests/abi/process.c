// Processes: fork, vfork, clone, exit, the wait family, credentials, limits, usage.
#include "check.h"
#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

TEST(fork_exit) {
    EXITED(wait_for(CHILD(_exit(7))), 7);
}

TEST(exit_status_is_8_bits) {
    EXITED(wait_for(CHILD(_exit(0x1ff))), 0xff);
}

TEST(wait_no_child) {
    ERR(wait(NULL), ECHILD);
    ERR(waitpid(1 << 21, NULL, 0), ECHILD);
}
