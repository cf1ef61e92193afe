# timeout: 120
# oracle: none

# The same with a gofer for each container: one that was given up and deleted while it waited for the others takes its gofer along.

flags=--directfs=false
. "$HERE/pod-checkpoint.sh"
