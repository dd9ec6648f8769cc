import t from 'tap';
import { MillraceError, type Failure } from '../../../lib/base/errors.js';
import type { AttemptId, JobId, OperatorId, VertexId } from '../../../lib/base/ids.js';
import { CheckpointStatisticsTracker } from '../../../checkpoint/coordinator/checkpoint-statistics.js';
import { CheckpointCoordinator } from '../../../checkpoint/coordinator/checkpoint-coordinator.js';
import { assignState } from '../../../checkpoint/restore.js';
import {
  MemoryCheckpointStorage,
  MemoryFiles,
} from '../../../checkpoint/storage/memory-checkpoint-storage.js';
import type {
  CheckpointGateway,
  CheckpointPointer,
  CheckpointSettings,
  CheckpointSubtask,
  PointerStore,
} from '../../../checkpoint/types.js';
import { ManualClock, settle } from '../../support/manual-clock.js';
import { testEnv } from '../../support/test-env.js';

const jobId = '00000000000000000000000000000001' as JobId;
const directory = 'memory://uid/jobs/1/checkpoints';
const source = 'op-a' as OperatorId;
const vertices = [
  {
    id: 'a' as VertexId,
    name: 'a',
    parallelism: 1,
    maxParallelism: 128,
    operators: [{ id: source, name: 'a', maxParallelism: 128 }],
  },
];

/** Pointers as the HA store keeps them, shared by the leaders of a test. */
class Pointers implements PointerStore {
  stored: CheckpointPointer[] = [];
  garbage: CheckpointPointer[] = [];
  failNext: MillraceError | undefined;
  hold: Promise<void> | undefined;

  async add(pointer: CheckpointPointer, subsumed: readonly number[]): Promise<void> {
    await this.hold;
    const failure = this.failNext;
    this.failNext = undefined;
    if (failure !== undefined) throw failure;
    this.garbage.push(...this.stored.filter((one) => subsumed.includes(one.checkpointId)));
    this.stored = this.stored.filter((one) => !subsumed.includes(one.checkpointId));
    this.stored.push(pointer);
  }

  async list(): Promise<CheckpointPointer[]> {
    return [...this.stored];
  }

  async listGarbage(): Promise<CheckpointPointer[]> {
    return [...this.garbage];
  }

  async removeGarbage(checkpointId: number): Promise<void> {
    this.garbage = this.garbage.filter((one) => one.checkpointId !== checkpointId);
  }
}

class Fixture {
  readonly clock = new ManualClock();
  readonly files = new MemoryFiles();
  readonly pointers = new Pointers();
  readonly calls: string[] = [];
  readonly failures: Failure[] = [];
  nextId = 1;
  mayActAfterNextTrigger = true;
  mayActAfterNextNotice = true;
  mayAct = true;
  subtask: CheckpointSubtask = {
    vertexId: 'a' as VertexId,
    subtaskIndex: 0,
    attemptId: 'a_0_0_x' as AttemptId,
    state: 'running',
    isRoot: true,
    endOfData: false,
  };
  /** Bytes the task acknowledges with; undefined: it does not. */
  state: Uint8Array | undefined = new Uint8Array(100);

  coordinator(
    config: Partial<CheckpointSettings> = {},
    epochLabel = 'e1.1',
  ): CheckpointCoordinator {
    const storage = new MemoryCheckpointStorage(this.files, directory, epochLabel);
    const tasks = storage.snapshotStorage(10);
    const acknowledge = async (checkpointId: number): Promise<void> => {
      if (this.state === undefined) return;
      const data = await tasks.write(checkpointId, 'a-0-x-op', this.state);
      coordinator.acknowledge({
        jobId,
        attemptId: this.subtask.attemptId,
        checkpointId,
        snapshot: {
          finished: this.subtask.endOfData,
          operators: {
            [source]: {
              keyed: { range: { start: 0, end: 127 }, sections: [], data },
              watermark: 5,
            },
          },
        },
        alignmentMs: 0,
        syncMs: 0,
        asyncMs: 0,
        startDelayMs: 0,
      });
    };
    const gateway: CheckpointGateway = {
      subtasks: () => [this.subtask],
      trigger: (attempts, id) => {
        this.calls.push(`trigger ${String(id)} ${attempts.join()}`);
        this.mayAct &&= this.mayActAfterNextTrigger;
        this.mayActAfterNextTrigger = true;
        void acknowledge(id);
      },
      notifyComplete: (_, id) => {
        const isStored = this.pointers.stored.some((one) => one.checkpointId === id);
        this.calls.push(`complete ${String(id)}${isStored ? '' : ' WITHOUT A POINTER'}`);
        this.mayAct &&= this.mayActAfterNextNotice;
        this.mayActAfterNextNotice = true;
      },
      notifyAborted: (_, id) => this.calls.push(`aborted ${String(id)}`),
      snapshotCoordinators: async (id) => {
        this.calls.push(`snapshot ${String(id)}`);
        return { [source]: Uint8Array.of(id) };
      },
      releaseCoordinators: (id) => this.calls.push(`release ${String(id)}`),
      failJob: (failure) => this.failures.push(failure),
    };
    const ids = {
      next: async () => this.nextId++,
      raiseTo: async (id: number) => {
        this.nextId = Math.max(this.nextId, id + 1);
      },
    };
    const coordinator = new CheckpointCoordinator(
      testEnv(this.clock),
      { pointers: this.pointers, ids, storage, gateway, mayAct: () => this.mayAct },
      {
        jobId,
        jobName: 'test',
        epochLabel,
        vertices,
        statistics: new CheckpointStatisticsTracker(2),
        config: {
          intervalMs: 0,
          timeoutMs: 1_000,
          minPauseMs: 0,
          maxConcurrent: 1,
          tolerableFailures: 0,
          numRetained: 2,
          ...config,
        },
      },
    );
    return coordinator;
  }
}

t.test(
  'a checkpoint is complete, readable, assignable, and told only when its pointer is stored',
  async (t) => {
    const fixture = new Fixture();
    const coordinator = fixture.coordinator();
    t.equal(await coordinator.restoreLatest(), undefined);
    coordinator.start();
    const taken = await coordinator.triggerNow();
    t.strictSame(fixture.calls, ['snapshot 1', 'trigger 1 a_0_0_x', 'release 1', 'complete 1']);
    t.equal(taken.pointer.checkpointId, 1);

    const restored = await coordinator.restoreLatest();
    t.match(restored?.pointer, { checkpointId: 1, kind: 'checkpoint', sha256: /^[0-9a-f]{64}$/ });
    t.equal(restored?.baseDirectory, `${directory}/chk-1-e1.1`);
    if (restored === undefined) return;
    const assigned = assignState(restored.metadata, vertices, {
      allowNonRestoredState: false,
      baseDirectory: restored.baseDirectory,
    });
    const handle = assigned.tasks.get('a' as VertexId)?.[0]?.operators[source]?.keyed[0]?.data;
    const storage = new MemoryCheckpointStorage(fixture.files, directory, 'e1.2').snapshotStorage(
      10,
    );
    t.equal(handle && (await storage.read(handle, restored.baseDirectory)).byteLength, 100);
    const coordinatorState = assigned.coordinators.get(source);
    t.strictSame(coordinatorState?.kind === 'inline' && [...coordinatorState.bytes], [1]);

    coordinator.reportRestored(restored);
    t.match(coordinator.statistics(), {
      counts: { restored: 1, total: 1, in_progress: 0, completed: 1, failed: 0 },
      latest: {
        completed: { id: 1, status: 'COMPLETED', state_size: 101, num_acknowledged_subtasks: 1 },
        restored: { id: 1 },
      },
      history: [{ id: 1 }],
    });
    t.match(coordinator.details(1), { external_path: `${directory}/chk-1-e1.1` });
    t.equal(coordinator.details(9), undefined);
    await coordinator.close();
    await coordinator.close();
    await t.rejects(coordinator.triggerNow(), { code: 'CLOSED' });
    await t.rejects(coordinator.restoreLatest(), { code: 'CLOSED' });
  },
);

t.test(
  'periodic checkpoints: subsumed ones lose their pointer first and then their files',
  async (t) => {
    const fixture = new Fixture();
    const coordinator = fixture.coordinator({ intervalMs: 100 });
    coordinator.start();
    await fixture.clock.advance(450);
    t.strictSame(
      fixture.pointers.stored.map((one) => one.checkpointId),
      [3, 4],
    );
    t.strictSame(fixture.pointers.garbage, []);
    t.strictSame(
      [...new Set(fixture.files.paths.map((path) => path.split('/').at(-2)))],
      ['chk-3-e1.1', 'chk-4-e1.1'],
    );
    t.strictSame(
      coordinator.statistics().history.map((one) => one.id),
      [4, 3],
    );
    await coordinator.close();
    t.equal(fixture.clock.pendingTimers, 0);
  },
);

t.test('garbage a predecessor left is deleted by its successor', async (t) => {
  const fixture = new Fixture();
  const first = fixture.coordinator({ numRetained: 1 });
  first.start();
  await first.triggerNow();
  fixture.pointers.listGarbage = () =>
    Promise.reject(new MillraceError('ETCD_UNAVAILABLE', 'away'));
  await first.triggerNow();
  await first.close();
  t.equal(fixture.files.paths.filter((path) => path.includes('chk-1-')).length, 2);
  Reflect.deleteProperty(fixture.pointers, 'listGarbage');

  const second = fixture.coordinator({}, 'e1.2');
  t.equal((await second.restoreLatest())?.pointer.checkpointId, 2);
  await settle();
  t.strictSame(
    fixture.files.paths.filter((path) => path.includes('chk-1-')),
    [],
  );
  t.strictSame(fixture.pointers.garbage, []);
  await second.close();
});

t.test(
  'an unreadable latest checkpoint is an error that says what can be done, never a fallback',
  async (t) => {
    const fixture = new Fixture();
    const coordinator = fixture.coordinator();
    coordinator.start();
    await coordinator.triggerNow();
    const { pointer } = await coordinator.triggerNow();
    const path = pointer.metadataPath;
    const intact = fixture.files.read(path) ?? new Uint8Array();
    const advice = new RegExp(`latest checkpoint, 2.*${path}.*run -s .*chk-1-e1.1/_metadata`, 's');

    fixture.files.write(path, intact.slice(0, 60));
    await t.rejects(coordinator.restoreLatest(), { code: 'CHECKPOINT_CORRUPT', message: advice });
    fixture.files.delete(path);
    await t.rejects(coordinator.restoreLatest(), { code: 'CHECKPOINT_NOT_FOUND', message: advice });
    // Whole and well-formed, but not the one the pointer was written for.
    fixture.files.write(
      path,
      fixture.files.read(path.replace('chk-2', 'chk-1')) ?? new Uint8Array(),
    );
    await t.rejects(coordinator.restoreLatest(), {
      code: 'CHECKPOINT_CORRUPT',
      message: /SHA-256/,
    });
    fixture.files.write(path, intact);
    t.equal((await coordinator.restoreLatest())?.pointer.checkpointId, 2);
    await coordinator.close();
  },
);

t.test('a disk that lies about a write is found out at restore', async (t) => {
  const fixture = new Fixture();
  const coordinator = fixture.coordinator();
  coordinator.start();
  fixture.files.injectFault('_metadata', 'torn');
  await coordinator.triggerNow();
  await t.rejects(coordinator.restoreLatest(), {
    code: 'CHECKPOINT_CORRUPT',
    message: /cut off.*no older one/s,
  });
  await coordinator.close();
});

t.test('a restore from a path makes later ids greater', async (t) => {
  const fixture = new Fixture();
  fixture.nextId = 40;
  const old = fixture.coordinator();
  old.start();
  const { pointer } = await old.triggerNow();
  await old.close();
  const other = new Fixture();
  for (const path of fixture.files.paths)
    other.files.write(path, fixture.files.read(path) ?? new Uint8Array());
  const coordinator = other.coordinator();
  for (const path of [pointer.metadataPath, pointer.metadataPath.replace('/_metadata', '')]) {
    t.equal((await coordinator.restoreFrom(path)).metadata.checkpointId, 40);
  }
  coordinator.start();
  t.equal((await coordinator.triggerNow()).pointer.checkpointId, 41);
  await t.rejects(coordinator.restoreFrom('/nowhere'), {
    code: 'CHECKPOINT_NOT_FOUND',
    message: /\/nowhere/,
  });
  await coordinator.close();
});

t.test(
  'a restore waits for the pointer that is being added, so that the latest is the latest',
  async (t) => {
    const fixture = new Fixture();
    let letGo = (): void => undefined;
    fixture.pointers.hold = new Promise((resolve) => {
      letGo = resolve;
    });
    const coordinator = fixture.coordinator();
    coordinator.start();
    const taken = coordinator.triggerNow();
    await settle();
    coordinator.stop('a task failed');
    const restoring = coordinator.restoreLatest();
    await settle();
    letGo();
    t.equal((await restoring)?.pointer.checkpointId, 1);
    t.equal((await taken).pointer.checkpointId, 1);
    await coordinator.close();
  },
);

t.test(
  'an add whose outcome is unknown is repeated until it is known, and its files stay',
  async (t) => {
    const fixture = new Fixture();
    fixture.pointers.failNext = new MillraceError('ETCD_UNAVAILABLE', 'away');
    const coordinator = fixture.coordinator();
    coordinator.start();
    const taken = coordinator.triggerNow();
    await settle();
    t.equal(fixture.files.paths.length, 2);
    t.notOk(fixture.calls.includes('complete 1'));
    await fixture.clock.advance(100);
    t.equal((await taken).pointer.checkpointId, 1);
    await coordinator.close();
  },
);

t.test(
  'leadership lost during the add: files stay, nobody is told, whoever asked hears why',
  async (t) => {
    const fixture = new Fixture();
    fixture.pointers.failNext = new MillraceError('LEADERSHIP_LOST', 'gone');
    const coordinator = fixture.coordinator();
    coordinator.start();
    await t.rejects(coordinator.triggerNow(), {
      code: 'CHECKPOINT_FAILED',
      message: /no longer the leader/,
    });
    t.equal(fixture.files.paths.length, 2);
    t.notOk(
      fixture.calls.some((call) => call.startsWith('complete') || call.startsWith('aborted')),
    );
    t.strictSame(fixture.failures, []);
    await coordinator.close();
  },
);

t.test(
  'metadata that cannot be written fails the job when no failure is tolerated, and leaves no files',
  async (t) => {
    const fixture = new Fixture();
    fixture.files.injectFault('_metadata', 'full');
    const coordinator = fixture.coordinator();
    coordinator.start();
    await t.rejects(coordinator.triggerNow(), {
      code: 'CHECKPOINT_FAILED',
      details: { reason: 'METADATA' },
    });
    await settle();
    t.match(fixture.failures, [
      { code: 'CHECKPOINT_FAILED', cause: { cause: { code: 'DISK_FULL' } } },
    ]);
    t.strictSame(fixture.files.paths, []);
    t.match(coordinator.statistics().latest.failed, {
      id: 1,
      status: 'FAILED',
      failure_message: /no space/,
    });
    await coordinator.close();
  },
);

t.test(
  'a suspended leader does nothing; what came meanwhile is dealt with when it may act again',
  async (t) => {
    const fixture = new Fixture();
    fixture.state = undefined;
    const coordinator = fixture.coordinator({ intervalMs: 500, timeoutMs: 300 });
    coordinator.start();
    await fixture.clock.advance(500);
    t.strictSame(fixture.calls, ['snapshot 1', 'trigger 1 a_0_0_x']);
    fixture.mayAct = false;
    coordinator.decline({
      attemptId: fixture.subtask.attemptId,
      checkpointId: 1,
      failure: { name: 'Error', message: 'x' },
    });
    await fixture.clock.advance(5_000);
    t.equal(fixture.calls.length, 2, 'no command while suspended');
    t.strictSame(fixture.failures, []);
    fixture.mayAct = true;
    await fixture.clock.advance(100);
    t.match(fixture.calls[2], /release 1/);
    t.equal(fixture.failures.length, 1);
    await coordinator.close();
    t.equal(fixture.clock.pendingTimers, 0);
  },
);

t.test(
  'an outage longer than the timeout expires no checkpoint, and what tasks were to be told is told',
  async (t) => {
    const fixture = new Fixture();
    const coordinator = fixture.coordinator({ intervalMs: 500, timeoutMs: 300 });
    coordinator.start();
    // The deadline passes in the moment in which the sources are triggered.
    fixture.mayActAfterNextTrigger = false;
    await fixture.clock.advance(500);
    t.strictSame(fixture.calls, ['snapshot 1', 'trigger 1 a_0_0_x']);
    await fixture.clock.advance(5_000);
    fixture.mayAct = true;
    coordinator.onResumed(5_000);
    await fixture.clock.advance(0);
    // Acknowledged all the same: whoever was triggered is told that it was given up, or it completed.
    t.match(fixture.calls[2], /release 1/);
    t.strictSame(fixture.failures, []);
    // It passes again while completion is told.
    fixture.mayActAfterNextNotice = false;
    await fixture.clock.advance(1_000);
    const complete = (): string[] => fixture.calls.filter((call) => /^complete \d+$/.test(call));
    const told = complete().at(-1);
    t.equal(fixture.mayAct, false);
    const before = complete().length;
    fixture.mayAct = true;
    coordinator.onResumed(1_000);
    t.strictSame(complete().slice(before), [told], 'told again: perhaps it was not heard');
    await coordinator.close();
  },
);

t.test('end of data asks for a final checkpoint though periodic ones are off', async (t) => {
  const fixture = new Fixture();
  const coordinator = fixture.coordinator({ intervalMs: 0 });
  coordinator.start();
  await fixture.clock.advance(10_000);
  t.strictSame(fixture.calls, []);
  fixture.subtask = { ...fixture.subtask, endOfData: true };
  coordinator.endOfData(fixture.subtask.attemptId);
  await settle();
  t.equal(fixture.calls.at(-1), 'complete 1');
  t.equal((await coordinator.restoreLatest())?.metadata.vertices[0]?.subtasks[0]?.finished, true);
  await fixture.clock.advance(10_000);
  t.equal(fixture.pointers.stored.length, 1, 'and for no other one');
  await coordinator.close();
});

t.test(
  'closing while a checkpoint is under way rejects whoever waits and deletes nothing',
  async (t) => {
    const fixture = new Fixture();
    fixture.state = undefined;
    const coordinator = fixture.coordinator();
    coordinator.start();
    const waiting = coordinator.triggerNow();
    await settle();
    await coordinator.close();
    await t.rejects(waiting, { code: 'CHECKPOINT_FAILED' });
    t.notOk(fixture.calls.some((call) => call.startsWith('aborted')));
  },
);
