/** What a check of the doctor says. */
export type FindingLevel = 'ok' | 'warning' | 'problem' | 'unknown';

export interface Finding {
  /** Which check: `etcd latency`. */
  readonly check: string;
  readonly level: FindingLevel;
  /** One sentence with the figures. */
  readonly message: string;
  /** What to do; with every warning and problem. */
  readonly advice?: string;
}

export const ok = (check: string, message: string): Finding => ({ check, level: 'ok', message });

/** Something that cannot be seen from here. */
export const unknown = (check: string, message: string): Finding => ({
  check,
  level: 'unknown',
  message,
});

export const warning = (check: string, message: string, advice: string): Finding => ({
  check,
  level: 'warning',
  message,
  advice,
});

export const problem = (check: string, message: string, advice: string): Finding => ({
  check,
  level: 'problem',
  message,
  advice,
});

export const ms = (value: number): string =>
  `${value < 10 ? value.toFixed(1) : String(Math.round(value))} ms`;
