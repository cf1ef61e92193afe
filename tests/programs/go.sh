# platforms: systrap
# timeout: 300

# go build and run of a program with goroutines, a server and files.
set -e
export HOME=/root GO111MODULE=off GOFLAGS=-p=2
mkdir -p /root/g && cd /root/g
cat > main.go <<'END'
package main

import ("fmt"; "io"; "net/http"; "os"; "os/exec"; "runtime"; "sync"; "time")

func main() {
	var wg sync.WaitGroup; ch := make(chan int, 10); sum := 0
	for i := 0; i < 100; i++ { wg.Add(1); go func(n int) { defer wg.Done(); runtime.Gosched(); ch <- n }(i) }
	go func() { wg.Wait(); close(ch) }()
	for n := range ch { sum += n }
	fmt.Println("hello", sum, runtime.GOOS, runtime.GOARCH)
	go http.ListenAndServe("127.0.0.1:8099", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "path ", r.URL.Path) }))
	for i := 0; i < 100; i++ { if r, err := http.Get("http://127.0.0.1:8099/x"); err == nil { b, _ := io.ReadAll(r.Body); fmt.Println(string(b)); break }; time.Sleep(20 * time.Millisecond) }
	os.WriteFile("f", []byte("data"), 0o600); b, _ := os.ReadFile("f"); fmt.Println(string(b))
	out, err := exec.Command("sh", "-c", "echo child; exit 2").Output(); fmt.Print(string(out), err, "\n")
	garbage := [][]byte{}; for i := 0; i < 2000; i++ { garbage = append(garbage, make([]byte, 10000)); if len(garbage) > 50 { garbage = nil } }; runtime.GC()
	select { case <-time.After(30 * time.Millisecond): fmt.Println("timer") }
	os.Exit(4)
}
END
go version
go build -o hello main.go
./hello || echo "status $?"
go vet main.go && echo vetted
