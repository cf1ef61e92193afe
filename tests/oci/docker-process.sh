# needs: docker

# Who, where, with which environment: -u -w -e --hostname and their like.
docker_run --rm -u 1234:5678 deb:1 id
docker_run --rm -u nobody deb:1 sh -c 'exec 2>&1; id; touch /x; cat /proc/self/status | grep -E "^(Cap|NoNew|Groups)"' 2>&1
docker_run --rm -u daemon --group-add 44 --group-add games deb:1 id
docker_run --rm -w /usr/lib deb:1 pwd
docker_run --rm -w /made/on/the/way deb:1 sh -c 'pwd; stat -c %a .'
docker_run --rm -e A=1 -e B='two words' -e HOME=/h deb:1 sh -c 'echo "$A $B $HOME"; env | sort | grep -v -E "^(HOSTNAME|_)="'
A=host docker_run --rm -e A deb:1 sh -c 'echo $A'
printf 'C=file\n# comment\nD=x y\n' > env
docker_run --rm --env-file env deb:1 sh -c 'echo "$C $D"'
docker_run --rm --hostname boxy deb:1 sh -c 'hostname; cat /etc/hostname; uname -n; echo $HOSTNAME'
docker_run --rm --hostname boxy --domainname example.org deb:1 sh -c 'hostname; cat /proc/sys/kernel/domainname'
docker_run --rm --add-host there:10.1.2.3 deb:1 grep there /etc/hosts
docker_run --rm --ulimit nofile=100:200 --ulimit core=0 deb:1 sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'
docker_run --rm --shm-size 1m deb:1 sh -c 'df -k /dev/shm | tail -n 1 | tr -s " " | cut -d " " -f 2'
docker_run --rm --sysctl kernel.msgmax=1234 deb:1 cat /proc/sys/kernel/msgmax
docker_run --rm --oom-score-adj 300 deb:1 cat /proc/self/oom_score_adj
docker_run --rm --security-opt no-new-privileges deb:1 grep NoNew /proc/self/status
docker_run --rm --label x=y --stop-signal USR1 deb:1 true && echo labelled
