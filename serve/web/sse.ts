// Server-sent events: bytes in, the data of each event out.

/** Takes text in pieces of any size; an event ends with an empty line. */
export class SseParser {
  private rest = "";
  private data: string[] = [];

  /** The data of the events that `text` completes. */
  push(text: string): string[] {
    const events: string[] = [];
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (this.data.length > 0) events.push(this.data.join("\n"));
        this.data = [];
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(line[5] === " " ? 6 : 5));
      }  // comments (": ping") and other fields say nothing to us
    }
    return events;
  }
}

/** The data of each event of a response's body, as they arrive. */
export async function* eventData(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const data of parser.push(decoder.decode(value, { stream: true }))) yield data;
    }
  } finally {
    // Also where the caller stops early: the server then sees that nobody listens.
    await reader.cancel().catch(() => undefined);
  }
}
