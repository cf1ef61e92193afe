# platforms: systrap
# timeout: 180

# redis-server and 20,000 requests by redis-benchmark, over TCP and over a UNIX socket.
cd /tmp
redis-server --port 6379 --unixsocket /tmp/redis.sock --save '' --daemonize no --loglevel warning > log 2>&1 &
for i in $(seq 1 200); do redis-cli ping > /dev/null 2>&1 && break; sleep 0.05; done
redis-cli ping
redis-cli set key value; redis-cli get key; redis-cli incr n; redis-cli lpush l a b c; redis-cli lrange l 0 -1
# Rates differ from run to run; that each test reports one does not.
redis-benchmark -n 20000 -q -t ping,set,get,incr,lpush,mset -c 20 | tr '\r' '\n' | grep 'requests per second' | sed 's/: .*//'
redis-benchmark -s /tmp/redis.sock -n 20000 -q -t set,get -P 16 | tr '\r' '\n' | grep 'requests per second' | sed 's/: .*//'
redis-cli dbsize > /dev/null
redis-cli bgsave; sleep 0.5; redis-cli lastsave > /dev/null; ls dump.rdb
redis-cli eval 'return redis.call("get", KEYS[1])' 1 key
redis-cli shutdown nosave; wait; echo "ended $?"
