/** All source coordinators of a job and the host their enumerators run in. */
import { Deferred } from '../../base/deferred.js';
import type { Env } from '../../base/env.js';
import { fromFailure, MillraceError, toFailure, type Failure } from '../../base/errors.js';
import type { AttemptId, OperatorId, VertexId } from '../../base/ids.js';
import type { Closeable } from '../../base/lifecycle.js';
import { withTimeout } from '../../base/abort.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type { OperatorEvent } from '../../operators/stream-operator.js';
import type {
  CoordinatorCommand,
  CoordinatorHost,
  CoordinatorHostFactory,
  CoordinatorReply,
} from './coordinator-host.js';
import { SourceCoordinator, type AdoptedReader } from './source-coordinator.js';

export interface SourceCoordinatorsDeps {
  readonly hosts: CoordinatorHostFactory;
  sendEvent(attemptId: AttemptId, operatorId: OperatorId, event: OperatorEvent): Promise<void>;
  onSendFailed(attemptId: AttemptId, error: unknown): void;
  /** User code of an enumerator threw, or its thread ended. */
  onFailed(failure: Failure): void;
  /** An enumerator cannot go on with readers that run since an earlier leader. */
  onAdoptionFailed(failure: Failure): void;
}

export interface SourceAdoption {
  /** The checkpoint the enumerators begin from; 0 when there is none. */
  readonly checkpointId: number;
  /** By source operator. */
  readonly readers: ReadonlyMap<OperatorId, readonly AdoptedReader[]>;
  /** Reads what the enumerators saved; called when the thread may be opened. */
  readonly states: () => Promise<ReadonlyMap<OperatorId, Uint8Array>>;
  /** Resolves when the thread may be opened. */
  readonly mayStart: Promise<void>;
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
  #resetNumber = 0;
  #ready: Deferred<void> | undefined;
  #isFailed = false;
  /** Commands for adopted enumerators that have not started yet. */
  #early: CoordinatorCommand[] | undefined;

  constructor(env: Env, graph: JobGraph, deps: SourceCoordinatorsDeps) {
    this.#env = env;
    this.#graph = graph;
    this.#deps = deps;
    for (const vertex of graph.vertices) {
      for (const operator of vertex.operators) {
        if (operator.kind !== 'source') continue;
        const coordinator = new SourceCoordinator(operator.id, {
          command: (command) => {
            if (this.#early === undefined) this.#host?.send(command);
            else this.#early.push(command);
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

  /**
   * Full (re)start: enumerators begin from the checkpoint's state, or from nothing. Resolves when they have started;
   * what is meant for them waits until then, so that tasks may be started meanwhile. ABORTED when a newer start took
   * its place, CLOSED when the job ended.
   */
  async reset(states: ReadonlyMap<OperatorId, Uint8Array>): Promise<void> {
    if (this.#sources.size === 0) return;
    if (this.#isFailed) {
      // Not awaited: user code that hangs must not hold up the restart.
      void this.#host?.close();
      this.#host = undefined;
      this.#isFailed = false;
    }
    this.#resetNumber += 1;
    const resetNumber = this.#resetNumber;
    // What the readers before them had still asked for is no longer wanted.
    for (const { coordinator } of this.#sources.values()) coordinator.resetAll();
    this.#early = [];
    await this.#startEnumerators(resetNumber, states);
  }

  /**
   * Readers go on under a new leader. Returns at once: what is meant for the enumerators waits until they have started.
   * When they cannot start or adopt, `onAdoptionFailed` is called.
   */
  adopt(adoption: SourceAdoption): void {
    if (this.#sources.size === 0) return;
    this.#resetNumber += 1;
    const resetNumber = this.#resetNumber;
    this.#early = [];
    for (const [operatorId, { coordinator }] of this.#sources)
      coordinator.adopt(adoption.readers.get(operatorId) ?? [], adoption.checkpointId);
    this.#startAdopted(resetNumber, adoption).catch((error: unknown) => {
      if (this.#resetNumber !== resetNumber) return;
      this.#deps.onAdoptionFailed(toFailure(error));
    });
  }

  async #startAdopted(resetNumber: number, { mayStart, states }: SourceAdoption): Promise<void> {
    await mayStart;
    const read = await states();
    if (this.#resetNumber !== resetNumber) return;
    await this.#startEnumerators(resetNumber, read);
  }

  async #startEnumerators(
    resetNumber: number,
    states: ReadonlyMap<OperatorId, Uint8Array>,
  ): Promise<void> {
    const ready = new Deferred<void>();
    this.#ready?.reject(new MillraceError('ABORTED', 'a newer restart takes its place'));
    this.#ready = ready;
    this.#host ??= this.#openHost();
    this.#host.send({
      kind: 'reset',
      resetNumber,
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
      if (this.#resetNumber === resetNumber) this.#isFailed = true;
      throw error;
    } finally {
      if (this.#ready === ready) this.#ready = undefined;
    }
    if (this.#resetNumber !== resetNumber) return;
    for (let next = this.#early?.shift(); next !== undefined; next = this.#early?.shift())
      this.#host?.send(next);
    this.#early = undefined;
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
    this.#early = undefined;
    this.#resetNumber += 1;
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
    if (reply.resetNumber !== this.#resetNumber) return;
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
        else if (reply.failure.code === 'ADOPTION_REFUSED')
          this.#deps.onAdoptionFailed(reply.failure);
        // While it only warms up nothing depends on it: the first reset opens another one.
        else if (this.#resetNumber > 0) this.#deps.onFailed(reply.failure);
    }
  }
}
