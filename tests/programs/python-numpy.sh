# timeout: 120

# A matrix product with threads, and what it must give.
exec python3 - <<'END'
import numpy as np
a = np.arange(400 * 400, dtype=np.float64).reshape(400, 400) % 97
b = (a.T + 3) % 89
c = a @ b
print(c.shape, int(c.sum()), int(np.trace(c)), int(c[17, 311]))
print(np.linalg.matrix_rank(np.eye(50)), np.allclose(np.linalg.inv(np.eye(20) * 4), np.eye(20) / 4))
m = np.memmap("/tmp/m", dtype=np.int32, mode="w+", shape=(1000, 1000)); m[:] = 7; m.flush()
print(int(np.fromfile("/tmp/m", dtype=np.int32).sum()))
END
