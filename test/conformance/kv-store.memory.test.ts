import t from 'tap';
import { MemoryKvServer } from '../../ha/memory/memory-kv-server.js';
import { MemoryKvStore } from '../../ha/memory/memory-kv-store.js';
import { ManualClock } from '../support/manual-clock.js';
import { kvStoreConformance } from './kv-store.js';

const clock = new ManualClock();
const server = new MemoryKvServer(clock);
t.teardown(() => {
  server.close();
});

kvStoreConformance(t, 'memory', {
  open: async () => new MemoryKvStore(clock, server),
  pass: (ms) => clock.advance(ms),
  compact: async () => {
    server.compact();
  },
  leaseTtlMs: 1_000,
});
