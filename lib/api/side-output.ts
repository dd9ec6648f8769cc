declare const elementType: unique symbol;

/**
 * Names a side output and carries the type of its records. Two tags with the same id are the same output.
 *
 * @example
 * const late = new OutputTag<Click>('late');
 */
export class OutputTag<T> {
  readonly id: string;
  /** Only a type: nothing is stored. */
  declare readonly [elementType]?: T;

  constructor(id: string) {
    if (id === '') throw new RangeError('an output tag needs a name');
    this.id = id;
  }
}
