// A Python traceback as blocks: frames with their code, runs of library frames to fold, and the lines that say what
// went wrong. Any other text (a Rust error chain, say) comes back as plain lines.

export interface Frame {
  kind: 'frame';
  file: string;
  line: number;
  where: string;
  code: string[];
  library: boolean;
}

export interface Folded {
  kind: 'folded';
  frames: Frame[];
}

export interface Line {
  kind: 'line';
  /** `head`: "Traceback …"; `error`: the exception; `link`: "During handling of …"; `text`: all else. */
  role: 'head' | 'error' | 'link' | 'text';
  text: string;
}

export type Block = Frame | Folded | Line;

const FRAME = /^([\s|+]*)File "(.+)", line (\d+)(?:, in (.*))?$/;
const LIBRARY = /[\\/](?:site-packages|dist-packages)[\\/]|[\\/]lib[\\/]python\d|^<frozen |[\\/]rustc[\\/]|[\\/]\.cargo[\\/]registry/;
const HEAD = /^[\s|+]*(?:Exception Group )?Traceback \(most recent call last\):/;
const LINK = /^(?:During handling of the above exception, another exception occurred:|The above exception was the direct cause of the following exception:)$/;

/** Splits a traceback; runs of library frames are folded unless nothing else would be left to see. */
export function parseTraceback(text: string): Block[] {
  const blocks = fold(scan(text.replace(/\r\n?/g, '\n').split('\n')));
  return blocks.some((b) => b.kind === 'frame') ? blocks : blocks.flatMap((b) => (b.kind === 'folded' ? b.frames : [b]));
}

function scan(lines: string[]): (Frame | Line)[] {
  const out: (Frame | Line)[] = [];
  let frame: Frame | null = null;
  let margin = 0;
  let seenFrame = false;
  for (const line of lines) {
    const head = FRAME.exec(line);
    if (head) {
      margin = head[1]?.length ?? 0;
      frame = { kind: 'frame', file: head[2] ?? '', line: Number(head[3]), where: head[4] ?? '', code: [], library: LIBRARY.test(head[2] ?? '') };
      out.push(frame);
      seenFrame = true;
    } else if (frame && indentOf(line) > margin && line.trim()) {
      frame.code.push(line.slice(margin + 2));
    } else {
      const afterFrames: boolean = frame !== null || (seenFrame && out.at(-1)?.kind === 'line' && (out.at(-1) as Line).role === 'error');
      frame = null;
      const role = roleOf(line, afterFrames);
      if (role === 'head' || role === 'link') seenFrame = false;
      if (line.trim() || out.length) out.push({ kind: 'line', role, text: line });
    }
  }
  while (out.at(-1)?.kind === 'line' && !(out.at(-1) as Line).text.trim()) out.pop();
  return out;
}

function roleOf(line: string, afterFrames: boolean): Line['role'] {
  if (HEAD.test(line)) return 'head';
  if (LINK.test(line.trim())) return 'link';
  return afterFrames && line.trim() ? 'error' : 'text';
}

function fold(blocks: (Frame | Line)[]): Block[] {
  const out: Block[] = [];
  for (const block of blocks) {
    const last = out.at(-1);
    if (block.kind === 'frame' && block.library) {
      if (last?.kind === 'folded') last.frames.push(block);
      else out.push({ kind: 'folded', frames: [block] });
    } else {
      out.push(block);
    }
  }
  return out;
}

function indentOf(line: string): number {
  return line.length - line.replace(/^[\s|+]*/, '').length;
}
