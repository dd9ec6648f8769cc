/**
 * Exactly-once alignment of the barriers of a task's input channels (Chandy-Lamport; Flink's
 * SingleCheckpointBarrierHandler). A channel whose barrier came is blocked until all have come. Rules:
 * - one alignment at a time; a barrier with a higher id aborts the running one;
 * - a barrier at or below the last aborted or taken checkpoint is dropped;
 * - the end of a partition counts as a barrier for every checkpoint;
 * - a trigger from the coordinator opens the alignment of a task whose inputs all ended (or are about to).
 */

export type BarrierInput =
  | {
      readonly kind: 'barrierArrived';
      readonly channel: number;
      readonly checkpointId: number;
      readonly timestamp: number;
    }
  /** In-band: the checkpoint was given up upstream. */
  | { readonly kind: 'cancelBarrierArrived'; readonly checkpointId: number }
  | { readonly kind: 'partitionEnded'; readonly channel: number }
  /** The coordinator counts this task among the roots of the checkpoint. */
  | { readonly kind: 'triggered'; readonly checkpointId: number; readonly timestamp: number }
  /** The coordinator gave the checkpoint up. */
  | { readonly kind: 'abortedByCoordinator'; readonly checkpointId: number }
  /** Another coordinator goes on: none of the checkpoints up to this one will complete. */
  | { readonly kind: 'abortedUpTo'; readonly checkpointId: number };

/** To be executed in order. */
export type BarrierEffect =
  | { readonly kind: 'blockChannel'; readonly channel: number }
  /** Before `unblockChannels` of the same step: the snapshot belongs before the records behind the barriers. */
  | {
      readonly kind: 'takeSnapshot';
      readonly checkpointId: number;
      readonly timestamp: number;
      readonly alignmentMs: number;
      readonly firstBarrierAt: number;
    }
  | { readonly kind: 'unblockChannels'; readonly channels: readonly number[] }
  /** The alignment ended without a snapshot. `superseded`: by a newer barrier, so the coordinator must be told. */
  | { readonly kind: 'giveUp'; readonly checkpointId: number; readonly superseded: boolean };

interface Alignment {
  readonly checkpointId: number;
  readonly timestamp: number;
  readonly startedAt: number;
  readonly arrived: Set<number>;
}

export class BarrierAligner {
  readonly #channels: number;
  readonly #ended = new Set<number>();
  #alignment: Alignment | undefined;
  /** Highest checkpoint taken or given up: nothing at or below it is of interest any more. */
  #settled = 0;

  constructor(channels: number) {
    this.#channels = channels;
  }

  get allEnded(): boolean {
    return this.#ended.size === this.#channels;
  }

  step(input: BarrierInput, now: number): BarrierEffect[] {
    switch (input.kind) {
      case 'barrierArrived':
        return this.#barrierArrived(input.channel, input, now);
      case 'triggered': {
        const opened = this.#open(input, now);
        return opened === undefined ? [] : [...opened, ...this.#completeIfAligned(now)];
      }
      case 'partitionEnded':
        this.#ended.add(input.channel);
        return this.#completeIfAligned(now);
      case 'cancelBarrierArrived':
      case 'abortedByCoordinator':
        return this.#aborted(input.checkpointId, true);
      case 'abortedUpTo':
        return this.#aborted(input.checkpointId, false);
    }
  }

  #barrierArrived(
    channel: number,
    barrier: { readonly checkpointId: number; readonly timestamp: number },
    now: number,
  ): BarrierEffect[] {
    const opened = this.#open(barrier, now);
    if (opened === undefined || this.#alignment === undefined) return [];
    this.#alignment.arrived.add(channel);
    return [...opened, { kind: 'blockChannel', channel }, ...this.#completeIfAligned(now)];
  }

  /** Makes the alignment of the checkpoint the running one; undefined when it is of no interest. */
  #open(
    barrier: { readonly checkpointId: number; readonly timestamp: number },
    now: number,
  ): BarrierEffect[] | undefined {
    const { checkpointId, timestamp } = barrier;
    if (checkpointId <= this.#settled) return undefined;
    const running = this.#alignment;
    if (running !== undefined && running.checkpointId >= checkpointId) {
      return running.checkpointId === checkpointId ? [] : undefined;
    }
    const effects = running === undefined ? [] : this.#giveUp(running, true);
    this.#alignment = { checkpointId, timestamp, startedAt: now, arrived: new Set() };
    return effects;
  }

  /** @param tells the coordinator waits for an older checkpoint that ends with it. */
  #aborted(checkpointId: number, tells: boolean): BarrierEffect[] {
    if (checkpointId <= this.#settled) return [];
    const running = this.#alignment;
    const effects =
      running === undefined || running.checkpointId > checkpointId
        ? []
        : this.#giveUp(running, tells && running.checkpointId !== checkpointId);
    this.#settled = checkpointId;
    // Also without an alignment: whoever is downstream may be aligning for it.
    if (running === undefined || running.checkpointId < checkpointId) {
      effects.push({ kind: 'giveUp', checkpointId, superseded: false });
    }
    return effects;
  }

  #giveUp(alignment: Alignment, superseded: boolean): BarrierEffect[] {
    this.#alignment = undefined;
    this.#settled = Math.max(this.#settled, alignment.checkpointId);
    const effects: BarrierEffect[] = [
      { kind: 'giveUp', checkpointId: alignment.checkpointId, superseded },
    ];
    if (alignment.arrived.size > 0) {
      effects.push({ kind: 'unblockChannels', channels: [...alignment.arrived] });
    }
    return effects;
  }

  #completeIfAligned(now: number): BarrierEffect[] {
    const alignment = this.#alignment;
    if (alignment === undefined) return [];
    for (let channel = 0; channel < this.#channels; channel += 1) {
      if (!alignment.arrived.has(channel) && !this.#ended.has(channel)) return [];
    }
    this.#alignment = undefined;
    this.#settled = alignment.checkpointId;
    const { checkpointId, timestamp, startedAt } = alignment;
    return [
      {
        kind: 'takeSnapshot',
        checkpointId,
        timestamp,
        alignmentMs: now - startedAt,
        firstBarrierAt: startedAt,
      },
      { kind: 'unblockChannels', channels: [...alignment.arrived] },
    ];
  }
}
