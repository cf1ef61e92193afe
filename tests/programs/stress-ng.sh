# platforms: systrap
# timeout: 120

# Load of several kinds at once, with no failure. Times and pids in the report differ.
cd /tmp
stress-ng --cpu 2 --vm 1 --vm-bytes 64M --fork 2 --pipe 2 --timeout 5s --metrics-brief > log 2>&1
echo "status $?"
grep -o -E 'successful run completed' log
! grep -i -E 'error|fail:' log
