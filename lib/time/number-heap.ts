/** Binary min-heap of numbers, each with a number beside it, in typed arrays. */
export class NumberHeap {
  #keys = new Float64Array(16);
  #values = new Int32Array(16);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  peek(): number | undefined {
    return this.#size === 0 ? undefined : this.#keys[0];
  }

  /** What was pushed with the smallest number; meaningless when the heap is empty. */
  peekValue(): number {
    return this.#values[0]!;
  }

  push(key: number, value = 0): void {
    if (this.#size === this.#keys.length) this.#grow();
    const keys = this.#keys;
    const values = this.#values;
    let at = this.#size;
    this.#size += 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = keys[parent]!;
      if (above <= key) break;
      keys[at] = above;
      values[at] = values[parent]!;
      at = parent;
    }
    keys[at] = key;
    values[at] = value;
  }

  pop(): number | undefined {
    if (this.#size === 0) return undefined;
    const keys = this.#keys;
    const values = this.#values;
    const top = keys[0]!;
    this.#size -= 1;
    const size = this.#size;
    const last = keys[size]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && keys[child + 1]! < keys[child]!) child += 1;
      if (keys[child]! >= last) break;
      keys[at] = keys[child]!;
      values[at] = values[child]!;
      at = child;
    }
    keys[at] = last;
    values[at] = values[size]!;
    return top;
  }

  #grow(): void {
    const keys = new Float64Array(2 * this.#keys.length);
    keys.set(this.#keys);
    const values = new Int32Array(2 * this.#values.length);
    values.set(this.#values);
    this.#keys = keys;
    this.#values = values;
  }
}
