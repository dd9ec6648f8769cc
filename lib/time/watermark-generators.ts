/**
 * Watermarks of the splits of one source subtask (or of one stream): per split the highest timestamp
 * seen minus the bound and 1 ms; together the minimum over the splits that are not idle. The result
 * never goes back, also over a restore. Time is an argument.
 */
import { MIN_WATERMARK } from '../record/stream-element.js';

interface SplitProgress {
  maxTimestamp: number;
  /** Had a record since the last idleness check. */
  isFresh: boolean;
  /** When it was last known to have had records. */
  activeAt: number;
  isIdle: boolean;
}

export interface WatermarkGeneratorOptions {
  readonly outOfOrdernessMs: number;
  readonly idlenessMs?: number;
}

export class SplitWatermarks {
  readonly #bound: number;
  readonly #idlenessMs: number | undefined;
  readonly #splits = new Map<string, SplitProgress>();
  /** Most records come from the split of the record before. */
  #lastId: string | undefined;
  #last: SplitProgress | undefined;
  #watermark = MIN_WATERMARK;
  /** When any split was last known to have had records, or the start. */
  #activeAt: number;
  #isIdle = false;

  constructor(options: WatermarkGeneratorOptions, now: number) {
    this.#bound = options.outOfOrdernessMs + 1;
    this.#idlenessMs = options.idlenessMs;
    this.#activeAt = now;
  }

  /** All splits (or, without any, the subtask itself) have been silent for the idleness timeout. */
  get isIdle(): boolean {
    return this.#isIdle;
  }

  onEvent(splitId: string, timestamp: number): void {
    let split = this.#last;
    if (splitId !== this.#lastId || split === undefined) {
      split = this.#splits.get(splitId);
      if (split === undefined) split = this.#add(splitId, MIN_WATERMARK, this.#activeAt);
      this.#lastId = splitId;
      this.#last = split;
    }
    split.isFresh = true;
    split.isIdle = false;
    this.#isIdle = false;
    if (timestamp > split.maxTimestamp) split.maxTimestamp = timestamp;
  }

  /** The split holds back no watermark any more. */
  release(splitId: string): void {
    this.#splits.delete(splitId);
    if (splitId === this.#lastId) this.#lastId = undefined;
  }

  /** Splits silent since `idlenessMs` become idle; call it only when records could have come. */
  checkIdleness(now: number): void {
    if (this.#idlenessMs === undefined) return;
    let hasActive = false;
    let latest = this.#activeAt;
    for (const split of this.#splits.values()) {
      if (split.isFresh) {
        split.isFresh = false;
        split.activeAt = now;
      } else if (now - split.activeAt >= this.#idlenessMs) {
        split.isIdle = true;
      }
      hasActive ||= !split.isIdle;
      latest = Math.max(latest, split.activeAt);
    }
    this.#activeAt = latest;
    this.#isIdle = !hasActive && now - latest >= this.#idlenessMs;
  }

  /** Records could not come for so long (back-pressure): that silence does not count. */
  excuseSilence(elapsedMs: number): void {
    this.#activeAt += elapsedMs;
    for (const split of this.#splits.values()) split.activeAt += elapsedMs;
  }

  /** Never lower than before. */
  current(): number {
    let minimum = Infinity;
    for (const { isIdle, maxTimestamp } of this.#splits.values()) {
      if (!isIdle && maxTimestamp < minimum) minimum = maxTimestamp;
    }
    if (minimum !== Infinity) this.#watermark = Math.max(this.#watermark, minimum - this.#bound);
    return this.#watermark;
  }

  maxTimestamp(splitId: string): number | undefined {
    const max = this.#splits.get(splitId)?.maxTimestamp;
    return max === MIN_WATERMARK ? undefined : max;
  }

  restoreWatermark(watermark: number): void {
    this.#watermark = Math.max(this.#watermark, watermark);
  }

  /** The split held back the watermark when the snapshot was taken, and does so again. */
  restoreSplit(splitId: string, maxTimestamp: number, now: number): void {
    this.#add(splitId, maxTimestamp, now);
  }

  #add(splitId: string, maxTimestamp: number, now: number): SplitProgress {
    const split = { maxTimestamp, isFresh: false, activeAt: now, isIdle: false };
    this.#splits.set(splitId, split);
    return split;
  }
}
