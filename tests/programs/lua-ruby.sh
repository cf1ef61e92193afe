# timeout: 90
# status: 5

# Lua and Ruby.
lua5.4 -e 'local t = {} for i = 1, 100000 do t[i] = i * 2 end table.sort(t, function(a, b) return a > b end) print(_VERSION, #t, t[1]) local f = io.popen("echo piped") print(f:read("a")) print(os.execute("exit 3")) for line in io.lines("/etc/hostname") do print(line) end print(string.format("%q", "x\ny"))'
exec ruby - <<'END'
require 'socket'; require 'json'; require 'open3'; require 'timeout'; require 'digest'; require 'tempfile'
puts RUBY_VERSION, JSON.generate({ a: [1, 2, { b: nil }] }), Digest::SHA256.hexdigest("x" * 100000)[0, 16]
q = Queue.new; threads = 5.times.map { |i| Thread.new { 100.times { |j| q << i * j } } }; threads.each(&:join); puts q.size
puts `echo shell`; out, st = Open3.capture2("cat; exit 3", stdin_data: "x" * 200000); puts out.size, st.exitstatus
r, w = IO.pipe; pid = fork { r.close; w.puts "child"; exit!(4) }; w.close; puts r.read; Process.wait(pid); puts $?.exitstatus
s = TCPServer.new("127.0.0.1", 0); t = Thread.new { c = s.accept; c.puts c.gets.upcase; c.close }; c = TCPSocket.new("127.0.0.1", s.addr[1]); c.puts "ruby"; puts c.gets; t.join
begin; Timeout.timeout(0.05) { sleep 5 }; rescue Timeout::Error => e; puts e.class; end
trap("USR1") { puts "signal" }; Process.kill("USR1", Process.pid); sleep 0.05
puts Dir.children("/etc").size > 10, File.stat("/etc/passwd").mode.to_s(8)
f = Fiber.new { 3.times { |i| Fiber.yield i }; :done }; p 4.times.map { f.resume }
exit 5
END
