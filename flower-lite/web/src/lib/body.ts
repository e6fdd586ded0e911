// Bodies of requests as JSON text. What a user typed as JSON goes in as typed once it is known to be JSON: reading and
// writing it here would round whole numbers beyond 2^53.

/** JSON text that is put into a body as it is. */
export class Raw {
  constructor(readonly text: string) {}
}

export function jsonBody(fields: Record<string, unknown>): string {
  const parts = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${JSON.stringify(key)}:${value instanceof Raw ? value.text : JSON.stringify(value)}`);
  return `{${parts.join(',')}}`;
}

/** What is wrong with typed JSON, as a sentence; empty when nothing is. */
export function wrongJson(text: string, want: 'array' | 'object'): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `is not JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
  const array = Array.isArray(value);
  if (want === 'array') return array ? '' : 'must be a list, such as [1, "two"]';
  return typeof value === 'object' && value !== null && !array ? '' : 'must be an object, such as {"key": 1}';
}

/** A number from a field; `undefined` when it is empty, `NaN` when it is none. */
export function typedNumber(text: string): number | undefined {
  const trimmed = text.trim();
  return trimmed === '' ? undefined : Number(trimmed);
}
