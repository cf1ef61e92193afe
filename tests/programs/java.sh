# platforms: systrap
# timeout: 240

# java -version, then javac and a program with threads.
java -version 2>&1
mkdir -p /root/j && cd /root/j
cat > Hello.java <<'END'
import java.nio.file.*; import java.util.*; import java.util.concurrent.*; import java.util.concurrent.atomic.*; import java.util.stream.*;
public class Hello {
  public static void main(String[] a) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(8); AtomicLong sum = new AtomicLong(); List<Future<Integer>> all = new ArrayList<>();
    for (int i = 0; i < 100; i++) { final int n = i; all.add(pool.submit(() -> { for (int j = 0; j < 1000; j++) sum.addAndGet(j % (n + 1)); return n; })); }
    int total = 0; for (Future<Integer> f : all) total += f.get(); pool.shutdown();
    System.out.println("hello " + total + " " + sum.get() + " " + pool.awaitTermination(5, TimeUnit.SECONDS));
    System.out.println(IntStream.range(0, 100000).parallel().mapToLong(x -> x).sum());
    Path p = Files.writeString(Path.of("out.txt"), "written\n"); System.out.print(Files.readString(p));
    System.out.println(new ProcessBuilder("sh", "-c", "exit 6").start().waitFor());
    byte[][] garbage = new byte[64][]; for (int i = 0; i < 2000; i++) garbage[i % 64] = new byte[1 << 16]; System.gc();
    try { Object o = null; o.toString(); } catch (NullPointerException e) { System.out.println("null pointer caught"); }
    Thread t = new Thread(() -> { try { Thread.sleep(10000); } catch (InterruptedException e) { System.out.println("interrupted"); } }); t.start(); t.interrupt(); t.join();
    System.exit(3);
  }
}
END
javac Hello.java && ls
java Hello; echo "status $?"
