import { MillraceError } from '../base/errors.js';

/** Codes that already say who can act; everything else a task's code throws is the user function's. */
export function toTaskError(
  error: unknown,
  task: { readonly name: string; readonly subtaskIndex: number; readonly parallelism: number },
  operator: { readonly id: string; readonly name: string } | undefined,
): MillraceError {
  const text = error instanceof Error ? error.message : String(error);
  const subtask = `${task.name} (${String(task.subtaskIndex + 1)}/${String(task.parallelism)})`;
  const details = {
    task: task.name,
    subtaskIndex: task.subtaskIndex,
    ...(operator && { operator: operator.name, operatorId: operator.id }),
  };
  if (error instanceof MillraceError) {
    const isNamed = operator === undefined || text.startsWith(operator.name);
    const where = isNamed ? subtask : `operator "${operator.name}" of ${subtask}`;
    return new MillraceError(error.code, `${where}: ${text}`, { cause: error, details });
  }
  if (operator === undefined) {
    return new MillraceError('INVARIANT', `${subtask} failed: ${text}`, { cause: error, details });
  }
  return new MillraceError(
    'USER_FUNCTION',
    `operator "${operator.name}" of ${subtask} threw: ${text}`,
    { cause: error, details },
  );
}
