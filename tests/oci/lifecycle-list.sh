# timeout: 60

# `list` and `ps`.

oci list | tr -s ' ' | sed 's/ *$//'
oci list --format json
bundle one '{"annotations": {"key": "value"}}' sh -c 'sleep 1001 & sleep 1002 & wait'
bundle two '{}' sleep 1000
oci create --bundle one one >/dev/null; oci create --bundle two two >/dev/null
oci start one
oci list | awk '{ print $1, $3, $4, $6 }'
oci list --format json | show
oci list -q
eventually oci exec one sh -c 'test $(ps -eo comm= | grep -c sleep) = 2'
# The table's columns are the runtime's affair.
oci ps one | tail -n +2 | wc -l
oci ps --format json one | show '' | sed 's/= [0-9]*/= PID/'
# They are processes of the host, by their names.
for pid in $(oci ps --format json one | tr '[],' '   '); do cat "/proc/$pid/comm"; done | sort
# A created container has its first process, a stopped one has none.
oci ps --format json two | show '' | sed 's/= [0-9]*/= PID/'
oci kill one KILL; eventually is one stopped
oci list | awk '{ print $1, $2 == 0, $3, $4 }'
oci delete one; oci delete --force two
status oci ps one 2>/dev/null
