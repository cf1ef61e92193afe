/* older ARGUMENTS...: runs PROGRAM, a path, as on Linux 5.10: a filter refuses what came later. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, what)
#define REFUSE(error) ANSWER(SECCOMP_RET_ERRNO | (error))
/* A call that is not there at all. */
#define ABSENT(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), REFUSE(ENOSYS)
/* A call with these bits in the lower half of an argument. */
#define WITHOUT_BITS(number, argument, bits) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4), LOAD(args[argument]), \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1), REFUSE(EINVAL), ANSWER(SECCOMP_RET_ALLOW)

int main(int count, char **arguments)
{
	struct sock_filter filter[] = {
		LOAD(nr),
		ABSENT(442), /* mount_setattr, 5.12 */
		ABSENT(449), /* futex_waitv, 5.16 */
		ABSENT(452), /* fchmodat2, 6.6 */
		ABSENT(463), /* setxattrat, 6.13 */
		ABSENT(464), /* getxattrat */
		ABSENT(465), /* listxattrat */
		ABSENT(466), /* removexattrat */
		WITHOUT_BITS(SYS_memfd_create, 1, 0x18), /* MFD_NOEXEC_SEAL, MFD_EXEC, 6.3 */
		WITHOUT_BITS(SYS_seccomp, 1, 1 << 5),    /* SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 5.19 */
		/* SECCOMP_IOCTL_NOTIF_SET_FLAGS, 6.6 */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		LOAD(args[1]),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, _IOW('!', 4, unsigned long long), 0, 1),
		REFUSE(EINVAL),
		ANSWER(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) {
		perror("older: filter");
		return 1;
	}
	(void)count;
	execv(PROGRAM, arguments);
	perror(PROGRAM);
	return 1;
}
