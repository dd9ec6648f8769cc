/** Where a TaskManager stands with this leader. Each registration has a number of its own. */
export type TaskManagerPresence =
  | { readonly kind: 'registered'; readonly registration: number }
  /** Known to etcd, or not known yet whether it is. */
  | { readonly kind: 'awaited' }
  /** Not worth waiting for. `reason` continues "the TaskManager". */
  | { readonly kind: 'gone'; readonly reason: string };
