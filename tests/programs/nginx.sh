# platforms: systrap
# timeout: 90

# nginx with two workers, asked by curl.
cd /tmp
mkdir -p www; for i in 1 2 3; do echo "page $i" > www/$i.html; done; head -c 1000000 /dev/zero > www/big
cat > nginx.conf <<'END'
worker_processes 2; error_log /tmp/error.log; pid /tmp/nginx.pid; events { worker_connections 100; }
http { access_log /tmp/access.log; sendfile on; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 127.0.0.1:8080; root /tmp/www; location /proxy/ { proxy_pass http://127.0.0.1:8080/; } } }
END
nginx -c /tmp/nginx.conf || { echo "nginx: $?"; cat error.log; }
for i in $(seq 1 100); do curl -s -o /dev/null http://127.0.0.1:8080/1.html && break; sleep 0.05; done
curl -s http://127.0.0.1:8080/1.html http://127.0.0.1:8080/2.html http://127.0.0.1:8080/proxy/3.html
curl -s -o /dev/null -w '%{http_code} %{size_download}\n' http://127.0.0.1:8080/big
curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/missing
curl -s -r 10-19 http://127.0.0.1:8080/big | wc -c
for i in $(seq 1 20); do curl -s http://127.0.0.1:8080/big & done | wc -c; wait
curl -sI http://127.0.0.1:8080/1.html | grep -i -E '^(HTTP|Content-Length)' | tr -d '\r'
nginx -c /tmp/nginx.conf -s reload; sleep 0.3; curl -s http://127.0.0.1:8080/2.html
nginx -c /tmp/nginx.conf -s quit
for i in $(seq 1 100); do test -e nginx.pid || break; sleep 0.05; done; test -e nginx.pid || echo stopped
curl -s http://127.0.0.1:8080/1.html; echo "curl $?"
grep -c 'GET /' access.log
