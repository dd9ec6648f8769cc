import t from 'tap';
import type { AttemptId, TaskManagerId } from '../../../lib/base/ids.js';
import { NetworkEnvironment } from '../../../lib/network/network-environment.js';
import { attachChannels } from '../../../lib/network/slot-channels.js';
import type { SlotReportMessage } from '../../../lib/task/slot-api.js';
import { createSlotLoop } from '../../../lib/task/slot-loop.js';
import { SlotRuntime } from '../../../lib/task/slot-runtime.js';
import {
  attemptIdOf,
  deploymentsOf,
  functionsOf,
  memoryStorage,
  type TestJob,
} from '../../support/slot-job.js';
import {
  CheckingSink,
  StampOperator,
  TestSource,
  type TestRecord,
} from '../../support/slot-operators.js';
import { testEnv } from '../../support/test-env.js';

/** Longer than a buffer now and then. */
const paddingOf = (seq: number): string | undefined =>
  seq % 100 === 7 ? 'x'.repeat(5000) : undefined;

t.test(
  'a job over two TaskManagers, on real loops and sockets, delivers everything once and ends',
  async (t) => {
    const env = testEnv();
    const sinks: CheckingSink[] = [];
    const records = 5000;
    const job: TestJob = {
      vertices: [
        {
          name: 'source',
          parallelism: 2,
          operators: [() => new TestSource({ records, watermarkEvery: 50, paddingOf })],
        },
        { name: 'stamp', parallelism: 2, operators: [() => new StampOperator()] },
        {
          name: 'sink',
          parallelism: 2,
          operators: [
            () => {
              const sink = new CheckingSink();
              sinks.push(sink);
              return sink;
            },
          ],
        },
      ],
      edges: [
        {
          from: 'source',
          to: 'stamp',
          strategy: 'HASH',
          key: (value) => (value as TestRecord).seq,
        },
        { from: 'stamp', to: 'sink', strategy: 'REBALANCE' },
      ],
    };
    const networks = [0, 1].map(
      (i) =>
        new NetworkEnvironment(env, {
          taskManagerId: `tm-${String(i)}` as TaskManagerId,
          clusterUid: 'uid',
          slots: 1,
          bufferBytes: 2048,
          buffersPerChannel: 4,
        }),
    );
    const addresses = await Promise.all(networks.map((network) => network.listen('127.0.0.1', 0)));
    const deployments = deploymentsOf(job, {
      slotOf: (_, subtask) => subtask,
      taskManagerOf: (slot) => ({ id: `tm-${String(slot)}`, address: addresses[slot]! }),
    });

    const runtimes: SlotRuntime[] = [];
    const send = (command: Parameters<SlotRuntime['command']>[0]): void => {
      for (const runtime of runtimes) runtime.command(command);
    };
    const ids = ['source', 'stamp', 'sink'].flatMap((name) => [
      attemptIdOf(name, 0),
      attemptIdOf(name, 1),
    ]);
    const sources = ids.slice(0, 2);
    const states = new Map<AttemptId, string>();
    const acks = new Map<number, number>();
    let ends = 0;
    let closed = 0;
    let connections: readonly (readonly number[])[] = [];
    await new Promise<void>((resolve, reject) => {
      const trigger = (checkpointId: number): void => {
        send({ kind: 'triggerCheckpoint', attemptIds: sources, checkpointId, timestamp: 0 });
      };
      const onReport = (message: SlotReportMessage): void => {
        switch (message.kind) {
          case 'taskState':
            states.set(message.attemptId, message.state);
            if (message.failure !== undefined) reject(new Error(message.failure.message));
            if (
              message.state === 'RUNNING' &&
              [...states.values()].filter((s) => s === 'RUNNING').length === ids.length
            ) {
              trigger(1);
            }
            break;
          case 'endOfData':
            ends += 1;
            if (ends < ids.length) break;
            connections = networks.map((n) => [n.connections.inbound, n.connections.outbound]);
            trigger(2);
            break;
          case 'checkpointAck': {
            const count = (acks.get(message.checkpointId) ?? 0) + 1;
            acks.set(message.checkpointId, count);
            if (count === ids.length) {
              send({
                kind: 'checkpointComplete',
                attemptIds: ids,
                checkpointId: message.checkpointId,
              });
            }
            break;
          }
          case 'closed':
            closed += 1;
            if (closed === 2) resolve();
            break;
          default:
        }
      };
      for (const [slot, deployment] of deployments) {
        const channels = attachChannels(networks[slot]!.openChannels(deployment, 0));
        const ports = {
          functions: functionsOf(job),
          storage: () => memoryStorage,
          channels,
          loop: createSlotLoop(env.clock),
          report: onReport,
        };
        runtimes.push(new SlotRuntime(env, ports));
      }
      [...deployments.values()].forEach((deployment, i) => runtimes[i]!.deploy(deployment));
    });

    t.same(
      [...states.values()],
      ids.map(() => 'FINISHED'),
    );
    t.same(
      [...acks],
      [
        [1, 6],
        [2, 6],
      ],
    );
    const total = (from: string): number =>
      sinks.reduce((sum, sink) => sum + (sink.counts[from] ?? 0), 0);
    t.same([total('source.0.0'), total('source.0.1')], [records, records]);
    t.same(
      connections,
      [
        [1, 1],
        [1, 1],
      ],
      'one connection per pair and direction',
    );
    for (const network of networks) {
      network.releaseChannels(0, 0);
      await network.close();
    }
  },
);
