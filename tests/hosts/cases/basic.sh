# short Sandboxes of root and of ordinary users, with ranges of ids and without.
. /usr/local/lib/library.sh
same "do" "$(moat do echo hi)" hi
same "the gofer" "$(moat --directfs=false do echo hi)" hi
same "ptrace" "$(moat --platform ptrace do echo hi)" hi
same "a pipe" "$(moat do sh -c 'echo a | tr a b')" b
status=0; moat do sh -c 'exit 7' || status=$?
same "an exit code" "$status" 7
same "do of a user" "$(login user moat do echo hi)" hi
same "do of a user without ids" "$(login plain moat do echo hi)" hi
same "flags twice" "$(moat --debug --debug=0 --network=none --network none do echo hi)" hi
same "a volume that is read-only" "$(moat do --volume /root:/mnt:ro sh -c 'touch /mnt/x 2>/dev/null || echo refused')" refused
says "$(uname -r)" moat doctor
moat doctor --json >/dev/null || fail "doctor: something is missing"
