/** Checks the shape of decoded metadata. Unknown fields are left out; a missing or ill-typed one is refused by its path. */
import type { JobId, OperatorId, VertexId } from '../../lib/base/ids.js';
import type {
  KeyedStateHandle,
  OperatorSubtaskState,
  StateHandle,
} from '../../lib/state/state-handle.js';
import type { CheckpointMetadata, VertexCheckpoint } from '../types.js';

type Fields = Readonly<Record<string, unknown>>;

class Reader {
  readonly #fail: (where: string, problem: string) => Error;

  constructor(fail: (where: string, problem: string) => Error) {
    this.#fail = fail;
  }

  fail(where: string, problem: string): never {
    throw this.#fail(where, problem);
  }

  object(value: unknown, where: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      this.fail(where, 'is no map');
    return value as Fields;
  }

  list<T>(value: unknown, where: string, read: (item: unknown, where: string) => T): T[] {
    if (!Array.isArray(value)) this.fail(where, 'is no list');
    return value.map((item, index) => read(item, `${where}[${String(index)}]`));
  }

  map<T>(
    value: unknown,
    where: string,
    read: (item: unknown, where: string) => T,
  ): Record<string, T> {
    const entries = Object.entries(this.object(value, where));
    return Object.fromEntries(entries.map(([key, item]) => [key, read(item, `${where}.${key}`)]));
  }

  text(fields: Fields, name: string, where: string): string {
    const value = fields[name];
    if (typeof value !== 'string') this.fail(`${where}.${name}`, 'is no text');
    return value;
  }

  integer(fields: Fields, name: string, where: string): number {
    const value = fields[name];
    if (typeof value !== 'number' || !Number.isSafeInteger(value))
      this.fail(`${where}.${name}`, 'is no integer');
    return value;
  }

  boolean(fields: Fields, name: string, where: string): boolean {
    const value = fields[name];
    if (typeof value !== 'boolean') this.fail(`${where}.${name}`, 'is no boolean');
    return value;
  }
}

export function readMetadataFields(
  value: unknown,
  fail: (where: string, problem: string) => Error,
): CheckpointMetadata {
  const reader = new Reader(fail);
  const fields = reader.object(value, 'metadata');
  const kind = reader.text(fields, 'kind', 'metadata');
  if (kind !== 'checkpoint' && kind !== 'savepoint') throw fail('metadata.kind', 'is unknown');
  return {
    version: 1,
    checkpointId: reader.integer(fields, 'checkpointId', 'metadata'),
    jobId: reader.text(fields, 'jobId', 'metadata') as JobId,
    jobName: reader.text(fields, 'jobName', 'metadata'),
    timestamp: reader.integer(fields, 'timestamp', 'metadata'),
    epoch: reader.text(fields, 'epoch', 'metadata'),
    kind,
    vertices: reader.list(fields['vertices'], 'vertices', (item, where) =>
      readVertex(reader, item, where),
    ),
    coordinators: reader.map(fields['coordinators'], 'coordinators', (item, where) =>
      readHandle(reader, item, where),
    ),
  };
}

function readVertex(reader: Reader, value: unknown, where: string): VertexCheckpoint {
  const fields = reader.object(value, where);
  return {
    vertexId: reader.text(fields, 'vertexId', where) as VertexId,
    name: reader.text(fields, 'name', where),
    parallelism: reader.integer(fields, 'parallelism', where),
    maxParallelism: reader.integer(fields, 'maxParallelism', where),
    operators: reader.list(fields['operators'], `${where}.operators`, (item, at) => {
      const operator = reader.object(item, at);
      return {
        id: reader.text(operator, 'id', at) as OperatorId,
        name: reader.text(operator, 'name', at),
        maxParallelism: reader.integer(operator, 'maxParallelism', at),
        ...(operator['uid'] !== undefined && { uid: reader.text(operator, 'uid', at) }),
      };
    }),
    subtasks: reader.list(fields['subtasks'], `${where}.subtasks`, (item, at) => {
      const subtask = reader.object(item, at);
      return {
        finished: reader.boolean(subtask, 'finished', at),
        operators: reader.map(subtask['operators'], `${at}.operators`, (state, inside) =>
          readState(reader, state, inside),
        ),
      };
    }),
  };
}

function readState(reader: Reader, value: unknown, where: string): OperatorSubtaskState {
  const fields = reader.object(value, where);
  const watermark = fields['watermark'];
  // Not an integer when it is the last watermark (infinite).
  if (watermark !== undefined && typeof watermark !== 'number')
    reader.fail(`${where}.watermark`, 'is no number');
  return {
    ...(fields['keyed'] !== undefined && {
      keyed: readKeyed(reader, fields['keyed'], `${where}.keyed`),
    }),
    ...(fields['operator'] !== undefined && {
      operator: readHandle(reader, fields['operator'], `${where}.operator`),
    }),
    ...(watermark !== undefined && { watermark }),
  };
}

function readKeyed(reader: Reader, value: unknown, where: string): KeyedStateHandle {
  const fields = reader.object(value, where);
  const range = reader.object(fields['range'], `${where}.range`);
  return {
    range: {
      start: reader.integer(range, 'start', `${where}.range`),
      end: reader.integer(range, 'end', `${where}.range`),
    },
    sections: reader.list(fields['sections'], `${where}.sections`, (item, at) => {
      const section = reader.object(item, at);
      return {
        keyGroup: reader.integer(section, 'keyGroup', at),
        offset: reader.integer(section, 'offset', at),
        length: reader.integer(section, 'length', at),
      };
    }),
    data: readHandle(reader, fields['data'], `${where}.data`),
  };
}

function readHandle(reader: Reader, value: unknown, where: string): StateHandle {
  const fields = reader.object(value, where);
  const kind = fields['kind'];
  if (kind === 'inline') {
    const bytes = fields['bytes'];
    if (!(bytes instanceof Uint8Array)) reader.fail(`${where}.bytes`, 'is no byte string');
    return { kind, bytes };
  }
  if (kind !== 'file') reader.fail(`${where}.kind`, 'is unknown');
  return {
    kind,
    path: reader.text(fields, 'path', where),
    sizeBytes: reader.integer(fields, 'sizeBytes', where),
    crc32: reader.integer(fields, 'crc32', where),
  };
}
