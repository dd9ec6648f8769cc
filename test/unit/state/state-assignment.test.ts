import fc from 'fast-check';
import t from 'tap';
import type { OperatorId, VertexId } from '../../../lib/base/ids.js';
import {
  computeKeyGroupRange,
  defaultMaxParallelism,
  subtaskOfKeyGroup,
} from '../../../lib/state/key-group-range.js';
import {
  assignState,
  type AssignableCheckpoint,
  type AssignableVertex,
} from '../../../lib/state/state-assignment.js';
import type { OperatorSubtaskState } from '../../../lib/state/state-handle.js';

const id = (name: string): OperatorId => name as OperatorId;
const options = { allowNonRestoredState: false, baseDirectory: '/c/chk-5' };

interface OldVertex {
  readonly operators: readonly string[];
  readonly parallelism: number;
  readonly maxParallelism?: number;
  readonly finished?: readonly number[];
  readonly state?: (operator: string, subtask: number) => OperatorSubtaskState;
}

function checkpoint(
  vertices: readonly OldVertex[],
  coordinators: string[] = [],
): AssignableCheckpoint {
  return {
    checkpointId: 5,
    vertices: vertices.map((vertex) => ({
      name: vertex.operators.join(' -> '),
      parallelism: vertex.parallelism,
      operators: vertex.operators.map((name) => ({
        id: id(name),
        uid: `uid-${name}`,
        name,
        maxParallelism: vertex.maxParallelism ?? 128,
      })),
      subtasks: Array.from({ length: vertex.parallelism }, (_, subtask) => ({
        finished: vertex.finished?.includes(subtask) ?? false,
        operators: Object.fromEntries(
          vertex.operators.map((name) => [
            id(name),
            vertex.state?.(name, subtask) ?? stateOf(vertex, name, subtask),
          ]),
        ),
      })),
    })),
    coordinators: Object.fromEntries(
      coordinators.map((name) => [id(name), { kind: 'inline' as const, bytes: Uint8Array.of(7) }]),
    ),
  };
}

function stateOf(vertex: OldVertex, name: string, subtask: number): OperatorSubtaskState {
  return {
    keyed: {
      range: computeKeyGroupRange(vertex.maxParallelism ?? 128, vertex.parallelism, subtask),
      sections: [],
      data: { kind: 'file', path: `${name}-${String(subtask)}-keyed`, sizeBytes: 1, crc32: 0 },
    },
    operator: { kind: 'file', path: `${name}-${String(subtask)}`, sizeBytes: 1, crc32: 0 },
    watermark: 100 + subtask,
  };
}

function vertex(
  operators: readonly string[],
  parallelism: number,
  maxParallelism?: number,
): AssignableVertex {
  return {
    id: operators[0] as unknown as VertexId,
    name: operators.join(' -> '),
    parallelism,
    operators: operators.map((name) => ({
      id: id(name),
      uid: `uid-${name}`,
      name,
      maxParallelism: maxParallelism ?? defaultMaxParallelism(parallelism),
    })),
  };
}

const parallelism = fc.integer({ min: 1, max: 128 });

t.test('key-group ranges are a partition in which every key group finds its owner', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1024 }), fc.nat(), (maxParallelism, seed) => {
      const p = 1 + (seed % maxParallelism);
      let next = 0;
      for (let index = 0; index < p; index += 1) {
        const { start, end } = computeKeyGroupRange(maxParallelism, p, index);
        if (start !== next || end < start) return false;
        for (let group = start; group <= end; group += 1) {
          if (subtaskOfKeyGroup(group, maxParallelism, p) !== index) return false;
        }
        next = end + 1;
      }
      return next === maxParallelism;
    }),
  );
  t.throws(() => computeKeyGroupRange(4, 5, 0), { code: 'INVARIANT' });
  t.strictSame([1, 85, 86, 200, 30_000].map(defaultMaxParallelism), [128, 128, 256, 512, 32_768]);
  t.end();
});

t.test('every key group is covered exactly once, from any parallelism to any other', (t) => {
  fc.assert(
    fc.property(parallelism, parallelism, (before, after) => {
      const old = checkpoint([{ operators: ['a'], parallelism: before }]);
      const assigned = assignState(old, [vertex(['a'], after)], options);
      const seen = new Array<number>(128).fill(0);
      assigned.tasks.get('a' as VertexId)?.forEach((task, index) => {
        const own = computeKeyGroupRange(128, after, index);
        for (const handle of task.operators[id('a')]?.keyed ?? []) {
          const start = Math.max(own.start, handle.range.start);
          const end = Math.min(own.end, handle.range.end);
          if (start > end) throw new Error('a handle without a key group of the subtask');
          for (let group = start; group <= end; group += 1) seen[group] = (seen[group] ?? 0) + 1;
        }
      });
      return seen.every((count) => count === 1);
    }),
  );
  t.end();
});

t.test('operator state is its own when the parallelism stays, else all of it in order', (t) => {
  const old = checkpoint([{ operators: ['a'], parallelism: 3 }]);
  const paths = (p: number): (string | undefined)[][] =>
    (assignState(old, [vertex(['a'], p)], options).tasks.get('a' as VertexId) ?? []).map((task) =>
      (task.operators[id('a')]?.operator ?? []).map((h) =>
        h.kind === 'file' ? h.path : undefined,
      ),
    );
  t.strictSame(paths(3), [['a-0'], ['a-1'], ['a-2']]);
  t.strictSame(paths(2), [
    ['a-0', 'a-1', 'a-2'],
    ['a-0', 'a-1', 'a-2'],
  ]);
  const [first] = assignState(old, [vertex(['a'], 2)], options).tasks.get('a' as VertexId) ?? [];
  t.match(first, { checkpointId: 5, baseDirectory: '/c/chk-5', finished: false });
  t.match(first?.operators[id('a')], { unchangedParallelism: false, watermark: 100 });
  t.end();
});

t.test('state follows its operator into another chain', (t) => {
  const old = checkpoint([{ operators: ['a', 'b'], parallelism: 1 }], ['a']);
  const assigned = assignState(old, [vertex(['a'], 1), vertex(['b', 'new'], 2)], options);
  const tasks = assigned.tasks.get('b' as VertexId) ?? [];
  t.equal(tasks.length, 2);
  t.strictSame(Object.keys(tasks[0]?.operators ?? {}), ['b'], 'a new operator starts empty');
  t.ok(assigned.coordinators.has(id('a')));
  t.end();
});

t.test('a vertex is finished only when every old subtask of all its operators was', (t) => {
  const finished = (old: OldVertex[], to: AssignableVertex): (boolean | undefined)[] =>
    (assignState(checkpoint(old), [to], options).tasks.get(to.id) ?? []).map(
      (task) => task.finished,
    );
  t.strictSame(
    finished([{ operators: ['a'], parallelism: 2, finished: [0, 1] }], vertex(['a'], 1)),
    [true],
  );
  t.strictSame(finished([{ operators: ['a'], parallelism: 2, finished: [0] }], vertex(['a'], 2)), [
    false,
    false,
  ]);
  t.strictSame(
    finished([{ operators: ['a'], parallelism: 1, finished: [0] }], vertex(['a', 'b'], 1)),
    [false],
  );
  t.strictSame(finished([], vertex(['a'], 1)), [false]);
  t.end();
});

t.test('the watermark is the minimum over the old subtasks that had not finished', (t) => {
  const watermark = (marks: (number | undefined)[], finished: number[]): number | undefined => {
    const old = checkpoint([
      {
        operators: ['a'],
        parallelism: marks.length,
        finished,
        state: (_, subtask) => {
          const mark = marks[subtask];
          return mark === undefined ? {} : { watermark: mark };
        },
      },
    ]);
    const [task] = assignState(old, [vertex(['a'], 1)], options).tasks.get('a' as VertexId) ?? [];
    return task?.operators[id('a')]?.watermark;
  };
  t.equal(watermark([30, 20], []), 20);
  t.equal(watermark([30, undefined], []), undefined, 'one had none yet');
  t.equal(watermark([30, undefined], [1]), 30, 'a finished one holds nothing back');
  t.equal(watermark([undefined], [0]), undefined);
  t.end();
});

t.test('the checkpoint decides on the number of key groups', (t) => {
  const old = checkpoint([{ operators: ['a'], parallelism: 1, maxParallelism: 64 }]);
  const assigned = assignState(old, [vertex(['a'], 2)], options);
  t.equal(assigned.maxParallelism.get(id('a')), 64, 'the default of the graph gives way');
  t.throws(() => assignState(old, [vertex(['a'], 65)], options), {
    code: 'CHECKPOINT_INCOMPATIBLE',
    message: /uid-a.*parallelism 65.*64 key groups/,
  });
  t.throws(() => assignState(old, [vertex(['a'], 2, 32)], options), {
    code: 'CHECKPOINT_INCOMPATIBLE',
    message: /maxParallelism 32.*64 key groups/,
  });
  t.doesNotThrow(() => assignState(old, [vertex(['a'], 2, 64)], options));
  t.end();
});

t.test('state nobody claims is an error that lists it, unless it may be dropped', (t) => {
  const old = checkpoint(
    [
      { operators: ['a'], parallelism: 1 },
      {
        operators: ['gone', 'stateless'],
        parallelism: 1,
        state: (name) =>
          name === 'gone' ? stateOf({ operators: [], parallelism: 1 }, name, 0) : { watermark: 1 },
      },
      { operators: ['src'], parallelism: 1, state: () => ({}) },
    ],
    ['src'],
  );
  t.throws(() => assignState(old, [vertex(['a'], 1)], options), {
    code: 'CHECKPOINT_INCOMPATIBLE',
    message: /gone \(uid uid-gone\), src \(uid uid-src\)\. .*--allowNonRestoredState/,
  });
  const dropped = assignState(old, [vertex(['a'], 1)], { ...options, allowNonRestoredState: true });
  t.strictSame(dropped.dropped, ['gone (uid uid-gone)', 'src (uid uid-src)']);
  t.end();
});
