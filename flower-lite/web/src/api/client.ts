// Reading JSON from the server that sent this page, under whatever prefix it is mounted.

const TIMEOUT_MS = 20_000;

/** What the server (as problem+json) or the network said instead of an answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }
}

export function apiUrl(path: string): string {
  return new URL(`api/v2/${path}`, document.baseURI).href;
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(apiUrl(path), { headers: { accept: 'application/json' }, credentials: 'same-origin', signal: signal ? AbortSignal.any([signal, deadline]) : deadline });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'The monitor does not answer', deadline.aborted ? 'no answer within 20 seconds' : 'it may be restarting, or the network is down');
  }
  if (!response.ok) throw await problem(response);
  return (await response.json()) as T;
}

async function problem(response: Response): Promise<ApiError> {
  let title = `The monitor answered ${response.status}`;
  let detail = '';
  try {
    const body = (await response.json()) as { title?: unknown; detail?: unknown };
    if (typeof body.title === 'string') title = body.title;
    if (typeof body.detail === 'string') detail = body.detail;
  } catch {
    // Not JSON: a proxy's page, most likely. The status says enough.
  }
  return new ApiError(response.status, title, detail);
}
