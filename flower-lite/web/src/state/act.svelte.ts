// Doing something: a question first where it needs one, the request, and one line on what came of it. Long jobs over
// many tasks are followed until they end.

import { ApiError, change, getJson } from '../api/client';
import type { ActionResult, Job } from '../api/control';
import { jsonBody } from '../lib/body';
import { announcer } from './announce.svelte';
import { session } from './session.svelte';

export interface Field {
  key: string;
  label: string;
  kind?: 'text' | 'number' | 'json' | 'select' | 'check';
  value?: string;
  placeholder?: string;
  hint?: string;
  options?: [string, string][];
  required?: boolean;
  min?: number;
  max?: number;
  /** Says what is wrong with a value; empty when nothing is. */
  check?: (value: string, all: Record<string, string>) => string;
  /** Shown only when this holds. */
  when?: (all: Record<string, string>) => boolean;
}

export interface Question {
  title: string;
  /** What will happen, and to what. */
  text?: string;
  warning?: string;
  fields?: Field[];
  /** What the button says. */
  verb: string;
  danger?: boolean;
  /** Must be typed before the button works. */
  typed?: string;
  run: (values: Record<string, string>) => Promise<unknown>;
}

export interface Toast {
  id: number;
  ok: boolean;
  text: string;
  lines: string[];
  task: string | null;
}

const KEPT = 4;
const SHOWN_MS = 8000;
const JOB_MS = 500;

class Acts {
  question = $state.raw<Question | null>(null);
  toasts = $state.raw<Toast[]>([]);
  jobs = $state.raw<Job[]>([]);
  private next = 1;

  ask(question: Question): void {
    this.question = question;
  }

  /** Does it and tells what came of it. Throws where the server refuses, so that a dialog can show why and stay. */
  async run(action: string, fields: Record<string, unknown>): Promise<ActionResult> {
    try {
      const result = await change<ActionResult>(`actions/${action}`, jsonBody(fields));
      const lines = result.results.filter((r) => (!result.ok || result.results.length > 1) && r.said).map((r) => `${r.target}: ${r.said}`);
      this.tell(result.ok, result.message, lines.slice(0, 6), result.results.find((r) => r.task_id)?.task_id ?? null);
      return result;
    } catch (error) {
      if (error instanceof ApiError && error.status === 403) void session.read();
      throw error;
    }
  }

  /** As `run`, without a dialog that could show a refusal. */
  async now(action: string, fields: Record<string, unknown>): Promise<boolean> {
    try {
      return (await this.run(action, fields)).ok;
    } catch (error) {
      const told = ApiError.of(error, 'It was not done');
      this.tell(false, told.title, told.detail ? [told.detail] : []);
      return false;
    }
  }

  tell(ok: boolean, text: string, lines: string[] = [], task: string | null = null): void {
    const toast = { id: this.next++, ok, text, lines, task };
    this.toasts = [...this.toasts, toast].slice(-KEPT);
    announcer.now(`${ok ? '' : 'Not done: '}${text}`);
    if (ok) setTimeout(() => this.dismiss(toast.id), SHOWN_MS);
  }

  dismiss(id: number): void {
    this.toasts = this.toasts.filter((toast) => toast.id !== id);
  }

  /** Starts a job over many tasks and follows it. */
  async bulk(fields: Record<string, unknown>): Promise<void> {
    this.put(await change<Job>('bulk', jsonBody(fields)));
    this.watch();
  }

  async cancel(job: Job): Promise<void> {
    try {
      this.put(await change<Job>(`bulk/${encodeURIComponent(job.id)}`, '', 'DELETE'));
    } catch (error) {
      this.tell(false, ApiError.of(error, 'It could not be cancelled').message);
    }
  }

  forget(job: Job): void {
    this.jobs = this.jobs.filter((other) => other.id !== job.id);
  }

  private put(job: Job): void {
    const known = this.jobs.find((other) => other.id === job.id);
    this.jobs = known ? this.jobs.map((other) => (other.id === job.id ? job : other)) : [...this.jobs, job].slice(-KEPT);
    if (job.state !== 'running' && known?.state === 'running') announcer.now(`${job.succeeded} done, ${job.failed} failed`);
  }

  private watching = false;

  private watch(): void {
    if (this.watching) return;
    this.watching = true;
    const look = async (): Promise<void> => {
      const running = this.jobs.filter((job) => job.state === 'running');
      if (!running.length) {
        this.watching = false;
        return;
      }
      for (const job of running) {
        try {
          this.put(await getJson<Job>(`bulk/${encodeURIComponent(job.id)}`));
        } catch (error) {
          if (error instanceof ApiError && error.status === 404) this.forget(job);
        }
      }
      setTimeout(() => void look(), JOB_MS);
    };
    setTimeout(() => void look(), JOB_MS);
  }
}

export const acts = new Acts();
