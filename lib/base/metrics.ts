/** Metric primitives; names and reporters live in lib/metrics. Updated synchronously, read by snapshots. */

export class Counter {
  #count = 0;

  inc(by = 1): void {
    this.#count += by;
  }

  get count(): number {
    return this.#count;
  }
}

export class Gauge {
  #value: number;

  constructor(initial = 0) {
    this.#value = initial;
  }

  set(value: number): void {
    this.#value = value;
  }

  get value(): number {
    return this.#value;
  }
}

/** Fixed-bound histogram; bounds ascend, the last bucket is everything above. */
export class Histogram {
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;
  count = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let bucket = 0;
    while (bucket < this.bounds.length && value > (this.bounds[bucket] ?? Infinity)) bucket += 1;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.sum += value;
    this.count += 1;
  }
}

/** A named family member: `name` is Flink's (`numRecordsIn`), labels identify the scope. */
export interface MetricSample {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A process's own metrics. Registering the same name and labels again returns the same metric. */
export class MetricRegistry {
  readonly #metrics = new Map<
    string,
    { name: string; labels: Record<string, string>; metric: Counter | Gauge | Histogram }
  >();

  counter(name: string, labels: Record<string, string> = {}): Counter {
    return this.#getOrAdd(name, labels, () => new Counter());
  }

  gauge(name: string, labels: Record<string, string> = {}): Gauge {
    return this.#getOrAdd(name, labels, () => new Gauge());
  }

  histogram(
    name: string,
    bounds: readonly number[],
    labels: Record<string, string> = {},
  ): Histogram {
    return this.#getOrAdd(name, labels, () => new Histogram(bounds));
  }

  samples(): MetricSample[] {
    return [...this.#metrics.values()].flatMap(({ name, labels, metric }): MetricSample[] => {
      if (metric instanceof Histogram) return histogramSamples(name, labels, metric);
      return metric instanceof Counter
        ? [{ name, type: 'counter', labels, value: metric.count }]
        : [{ name, type: 'gauge', labels, value: metric.value }];
    });
  }

  #getOrAdd<M extends Counter | Gauge | Histogram>(
    name: string,
    labels: Record<string, string>,
    create: () => M,
  ): M {
    const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
    const known = this.#metrics.get(key);
    if (known !== undefined) return known.metric as M;
    const metric = create();
    this.#metrics.set(key, { name, labels, metric });
    return metric;
  }
}

/** As Prometheus has them: buckets count all that is at most their bound. */
function histogramSamples(
  name: string,
  labels: Record<string, string>,
  histogram: Histogram,
): MetricSample[] {
  let count = 0;
  const buckets = histogram.counts.map((own, i): MetricSample => {
    count += own;
    const le = i < histogram.bounds.length ? String(histogram.bounds[i]) : '+Inf';
    return { name: `${name}_bucket`, type: 'counter', labels: { ...labels, le }, value: count };
  });
  return [
    ...buckets,
    { name: `${name}_sum`, type: 'counter', labels, value: histogram.sum },
    { name: `${name}_count`, type: 'counter', labels, value: histogram.count },
  ];
}
