# timeout: 90
# oracle: none

# A container with a terminal of its own, and what was exec'd into it, through an image. (runc needs criu for it.)

exec python3 -Bu "$HERE/checkpoint.py" "$OCI" "$WORK"
