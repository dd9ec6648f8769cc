/**
 * One watermark out of those of all input channels (Flink's StatusWatermarkValve): the minimum over the
 * active ones, never going back. An idle channel holds nothing back; when all are idle the task is. A
 * channel that reached MAX_WATERMARK has ended and counts no more: MAX goes out only when all have ended,
 * so an idle channel that wakes up again finds its windows open.
 */
import { MAX_WATERMARK, MIN_WATERMARK } from '../record/stream-element.js';

export type WatermarkInput =
  | { readonly kind: 'watermarkArrived'; readonly channel: number; readonly timestamp: number }
  | { readonly kind: 'statusArrived'; readonly channel: number; readonly active: boolean };

export type WatermarkEffect =
  | { readonly kind: 'emitWatermark'; readonly timestamp: number }
  | { readonly kind: 'emitStatus'; readonly active: boolean };

interface ChannelMark {
  watermark: number;
  active: boolean;
}

export class WatermarkValve {
  readonly #channels: ChannelMark[];
  #last = MIN_WATERMARK;
  #active = true;

  constructor(channels: number) {
    this.#channels = Array.from({ length: channels }, () => ({
      watermark: MIN_WATERMARK,
      active: true,
    }));
  }

  /** The last watermark that went out; MIN_WATERMARK before the first. */
  get current(): number {
    return this.#last;
  }

  step(input: WatermarkInput): WatermarkEffect[] {
    const channel = this.#channels[input.channel];
    if (channel === undefined || channel.watermark === MAX_WATERMARK) return [];
    if (input.kind === 'statusArrived') {
      if (channel.active === input.active) return [];
      channel.active = input.active;
      return this.#advance();
    }
    if (input.timestamp <= channel.watermark) return [];
    // An idle channel's watermark is kept for when it is active again.
    channel.watermark = input.timestamp;
    return channel.active || input.timestamp === MAX_WATERMARK ? this.#advance() : [];
  }

  #advance(): WatermarkEffect[] {
    const effects: WatermarkEffect[] = [];
    let minimum = MAX_WATERMARK;
    let maximum = MIN_WATERMARK;
    let someActive = false;
    let allEnded = true;
    for (const { watermark, active } of this.#channels) {
      if (watermark === MAX_WATERMARK) continue;
      allEnded = false;
      maximum = Math.max(maximum, watermark);
      if (!active) continue;
      someActive = true;
      minimum = Math.min(minimum, watermark);
    }
    const active = someActive || allEnded;
    if (active && !this.#active) effects.push({ kind: 'emitStatus', active: true });
    // All idle: what the last active one held back is held back no more.
    const next = active ? minimum : maximum;
    if (next > this.#last) {
      this.#last = next;
      effects.push({ kind: 'emitWatermark', timestamp: next });
    }
    if (!active && this.#active) effects.push({ kind: 'emitStatus', active: false });
    this.#active = active;
    return effects;
  }
}
