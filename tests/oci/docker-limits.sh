# needs: docker

# Limits reach the host's cgroups; what exceeds them ends as Docker expects.
docker_run -d --name box --memory 200m --cpus 1.5 --pids-limit 500 --cpu-shares 512 --cpuset-cpus 0 deb:1 sleep 1000 >/dev/null
group() { cat "/sys/fs/cgroup/$1/docker/$(docker inspect -f '{{.Id}}' box)/$2"; }
[ -d /sys/fs/cgroup/memory ] && {
    group memory memory.limit_in_bytes; group cpu cpu.cfs_quota_us; group cpu cpu.cfs_period_us
    group cpu cpu.shares; group cpuset cpuset.cpus
    test "$(group memory cgroup.procs | wc -l)" -ge 1 && echo 'has processes'
}
docker stats --no-stream --format '{{.MemUsage}}' box | sed 's/.*\///'
docker update --memory 300m --memory-swap -1 --cpus 0.5 box
[ -d /sys/fs/cgroup/memory ] && { group memory memory.limit_in_bytes; group cpu cpu.cfs_quota_us; }
docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}' box
docker rm -f box
# Out of memory.
docker_run --name box --memory 64m --memory-swap 64m deb:1 sh -c 'x=x; while :; do x=$x$x; done' >/dev/null 2>&1
echo "status $?"
docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' box
docker rm box
