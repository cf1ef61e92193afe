# short without=xsave,avx,avx2,fsgsbase,rdpid A processor without XSAVE: the other platform works, and the error says so.
. /usr/local/lib/library.sh
! grep -qw xsave /proc/cpuinfo || fail "the processor has xsave"
says "--platform=ptrace" moat do echo hi
says "--platform=ptrace" moat doctor
same "ptrace" "$(moat --platform ptrace do echo hi)" hi
