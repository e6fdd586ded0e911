// Talking JSON with the server that sent this page, under whatever prefix it is mounted.

const TIMEOUT_MS = 20_000;
/** What tells our own requests from those that another site's form can make. */
const OURS = { 'x-requested-with': 'flower-lite' };

/** What the server (as problem+json) or the network said instead of an answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }

  /** Whatever was thrown, as one of these. */
  static of(error: unknown, title: string): ApiError {
    return error instanceof ApiError ? error : new ApiError(0, title, error instanceof Error ? error.message : String(error));
  }
}

export function apiUrl(path: string): string {
  return new URL(`api/v2/${path}`, document.baseURI).href;
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(apiUrl(path), { headers: { accept: 'application/json' } }, signal);
  return (await response.json()) as T;
}

/** Asks for a change. `body` is JSON text: numbers that a script cannot hold pass through it unharmed. */
export async function change<T>(path: string, body: string, method: 'POST' | 'DELETE' = 'POST'): Promise<T> {
  const headers = { accept: 'application/json', 'content-type': 'application/json', ...OURS };
  const response = await send(apiUrl(path), { method, headers, ...(method === 'POST' ? { body } : {}) });
  return (await response.json()) as T;
}

/** Ends the session and goes where a new one begins. */
export async function logOut(): Promise<void> {
  await send(new URL('logout', document.baseURI).href, { method: 'POST', headers: OURS });
  location.assign(new URL('login', document.baseURI).href);
}

async function send(url: string, options: RequestInit, signal?: AbortSignal): Promise<Response> {
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(url, { ...options, credentials: 'same-origin', signal: signal ? AbortSignal.any([signal, deadline]) : deadline });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'The monitor does not answer', deadline.aborted ? 'no answer within 20 seconds' : 'it may be restarting, or the network is down');
  }
  if (response.status === 401) askToLogIn();
  if (!response.ok) throw await problem(response);
  return response;
}

let asked = false;

/** The session has ended, or there was none: the server has a page for that, which leads back here. */
function askToLogIn(): void {
  if (asked) return;
  asked = true;
  const login = new URL('login', document.baseURI);
  login.searchParams.set('next', location.pathname + location.search);
  location.assign(login.href);
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
