/** All source coordinators of a job and the host their enumerators run in. */
import { Deferred } from '../../base/deferred.js';
import type { Env } from '../../base/env.js';
import { fromFailure, MillraceError, type Failure } from '../../base/errors.js';
import type { AttemptId, OperatorId, VertexId } from '../../base/ids.js';
import type { Closeable } from '../../base/lifecycle.js';
import { withTimeout } from '../../base/abort.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type { OperatorEvent } from '../../operators/stream-operator.js';
import type {
  CoordinatorHost,
  CoordinatorHostFactory,
  CoordinatorReply,
} from './coordinator-host.js';
import { SourceCoordinator } from './source-coordinator.js';

export interface SourceCoordinatorsDeps {
  readonly hosts: CoordinatorHostFactory;
  sendEvent(attemptId: AttemptId, operatorId: OperatorId, event: OperatorEvent): Promise<void>;
  onSendFailed(attemptId: AttemptId, error: unknown): void;
  /** User code of an enumerator threw, or its thread ended. */
  onFailed(failure: Failure): void;
}

interface SourceVertex {
  readonly vertexId: VertexId;
  readonly parallelism: number;
  readonly coordinator: SourceCoordinator;
}

/** Enumerators list files and ask services when they start: longer than that is a fault. */
const startTimeoutMs = 60_000;

export class SourceCoordinators implements Closeable {
  readonly #env: Env;
  readonly #graph: JobGraph;
  readonly #deps: SourceCoordinatorsDeps;
  readonly #sources = new Map<OperatorId, SourceVertex>();
  #host: CoordinatorHost | undefined;
  #incarnation = 0;
  #ready: Deferred<void> | undefined;
  #isFailed = false;

  constructor(env: Env, graph: JobGraph, deps: SourceCoordinatorsDeps) {
    this.#env = env;
    this.#graph = graph;
    this.#deps = deps;
    for (const vertex of graph.vertices) {
      for (const operator of vertex.operators) {
        if (operator.kind !== 'source') continue;
        const coordinator = new SourceCoordinator(operator.id, {
          command: (command) => {
            this.#host?.send(command);
          },
          sendEvent: (attemptId, event) => deps.sendEvent(attemptId, operator.id, event),
          onSendFailed: (attemptId, error) => {
            deps.onSendFailed(attemptId, error);
          },
        });
        this.#sources.set(operator.id, {
          vertexId: vertex.id,
          parallelism: vertex.parallelism,
          coordinator,
        });
      }
    }
  }

  /** Starts the thread the enumerators will run in, while other things are waited for. */
  warmUp(): void {
    if (this.#sources.size > 0) this.#host ??= this.#openHost();
  }

  /** Full (re)start: enumerators begin from the checkpoint's state, or from nothing. */
  async reset(states: ReadonlyMap<OperatorId, Uint8Array>): Promise<void> {
    if (this.#sources.size === 0) return;
    if (this.#isFailed) {
      // Not awaited: user code that hangs must not hold up the restart.
      void this.#host?.close();
      this.#host = undefined;
      this.#isFailed = false;
    }
    this.#incarnation += 1;
    const incarnation = this.#incarnation;
    for (const { coordinator } of this.#sources.values()) coordinator.resetAll();
    const ready = new Deferred<void>();
    this.#ready?.reject(new MillraceError('ABORTED', 'a newer restart takes its place'));
    this.#ready = ready;
    this.#host ??= this.#openHost();
    this.#host.send({
      kind: 'reset',
      incarnation,
      sources: [...this.#sources].map(([operatorId, { parallelism }]) => {
        const state = states.get(operatorId);
        return { operatorId, parallelism, ...(state !== undefined && { state }) };
      }),
    });
    try {
      await withTimeout(
        this.#env.clock,
        startTimeoutMs,
        'starting the split enumerators',
        ready.promise,
      );
    } catch (error) {
      if (this.#incarnation === incarnation) this.#isFailed = true;
      throw error;
    } finally {
      if (this.#ready === ready) this.#ready = undefined;
    }
  }

  /** Some subtasks restart from this checkpoint, the enumerators go on. */
  resetSubtask(
    vertexId: VertexId,
    subtask: number,
    restoredCheckpointId: number | undefined,
  ): void {
    for (const source of this.#sources.values()) {
      if (source.vertexId === vertexId)
        source.coordinator.resetSubtask(subtask, restoredCheckpointId);
    }
  }

  onReaderEvent(
    operatorId: OperatorId,
    subtask: number,
    attemptId: AttemptId,
    event: OperatorEvent,
  ): void {
    this.#sources.get(operatorId)?.coordinator.onReaderEvent(subtask, attemptId, event);
  }

  async snapshot(checkpointId: number): Promise<Record<OperatorId, Uint8Array>> {
    const states = await Promise.all(
      [...this.#sources].map(
        async ([operatorId, { coordinator }]) =>
          [operatorId, await coordinator.snapshot(checkpointId)] as const,
      ),
    );
    return Object.fromEntries(states);
  }

  release(checkpointId: number): void {
    for (const { coordinator } of this.#sources.values()) coordinator.release(checkpointId);
  }

  onCheckpointComplete(checkpointId: number): void {
    for (const { coordinator } of this.#sources.values())
      coordinator.onCheckpointComplete(checkpointId);
  }

  async close(): Promise<void> {
    const host = this.#host;
    this.#host = undefined;
    this.#incarnation += 1;
    this.#ready?.reject(new MillraceError('CLOSED', 'the job ended'));
    for (const { coordinator } of this.#sources.values()) coordinator.close();
    await host?.close();
  }

  #openHost(): CoordinatorHost {
    const host = this.#deps.hosts(this.#graph, (reply) => {
      if (this.#host === host || this.#host === undefined) this.#onReply(reply);
    });
    return host;
  }

  #onReply(reply: CoordinatorReply): void {
    if (reply.incarnation !== this.#incarnation) return;
    switch (reply.kind) {
      case 'ready':
        this.#ready?.resolve();
        return;
      case 'assigned':
        this.#sources.get(reply.operatorId)?.coordinator.onAssigned(reply.subtask, reply.splits);
        return;
      case 'readerAdded':
        this.#sources.get(reply.operatorId)?.coordinator.onReaderAdded(reply.subtask);
        return;
      case 'noMoreSplits':
        this.#sources.get(reply.operatorId)?.coordinator.onNoMoreSplits(reply.subtask);
        return;
      case 'snapshotTaken':
        this.#sources
          .get(reply.operatorId)
          ?.coordinator.onSnapshotTaken(reply.checkpointId, reply.state);
        return;
      case 'failed':
        this.#isFailed = true;
        if (this.#ready !== undefined) this.#ready.reject(fromFailure(reply.failure));
        // While it only warms up nothing depends on it: the first reset opens another one.
        else if (this.#incarnation > 0) this.#deps.onFailed(reply.failure);
    }
  }
}
