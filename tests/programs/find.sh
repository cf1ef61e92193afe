# platforms: systrap ptrace
# timeout: 120

# Walks the whole root.
find /usr -type f | wc -l
find /usr /etc /var -xdev | sort | sha256sum
find / -xdev -perm -4000 | sort
find /usr/lib -name '*.so*' -size +1M -newermt 2000-01-01 | sort | sha256sum
grep -rl moat /etc | sort
