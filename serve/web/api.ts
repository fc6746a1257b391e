// The server's API as this page uses it.
import { promptTokens } from "./prompt_tokens.js";
import type { Props } from "./props.js";
import { eventData } from "./sse.js";
import type { Token } from "./token_stream.js";

export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly code: string | null = null) {
    super(message);
  }
}

export interface Logprobs {
  tokens: string[];
  text_offset: number[];  // characters of the text before each token
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[] | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens: number };
  photon?: {
    protocol: string;
    kv_bytes_growing: number;
    kv_bytes_constant: number;
    prefill_ms: number;
    decode_ms: number;
    queue_ms: number;
  };
}

export interface ChoiceDelta {
  text: string;
  finish_reason: string | null;
  token_ids?: number[];  // of the tokens that begin in this text
  logprobs: Logprobs | null;
}

export interface CompletionEvent {
  choices: ChoiceDelta[];
  usage?: Usage | null;
  error?: { message: string; code?: string | null };
}

export interface CompletionRequest {
  model: string;
  prompt: string;
  protocol: string;
  max_tokens: number;
  [sampling: string]: unknown;
}

/** What is asked for beside the text: all that the page shows. */
const streaming = { stream: true, stream_options: { include_usage: true }, logprobs: 5, return_token_ids: true };

export class Api {
  key = "";

  async props(): Promise<Props> {
    return (await this.get("props")).json();
  }

  /** The tokens that a prompt becomes, with the one that begins every text. */
  async tokenize(prompt: string, props: Props, signal: AbortSignal): Promise<Token[]> {
    const body = { prompt, add_special_tokens: true, return_token_strs: true };
    const { tokens, token_strs } = await (await this.post("tokenize", body, signal)).json();
    return promptTokens(prompt, tokens, token_strs, props.bos_token_id);
  }

  async *complete(request: CompletionRequest, signal: AbortSignal): AsyncGenerator<CompletionEvent> {
    const response = await this.post("v1/completions", { ...request, ...streaming }, signal);
    for await (const data of eventData(response.body!)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data) as CompletionEvent;
      if (event.error) throw new ApiError(response.status, event.error.message, event.error.code ?? null);
      yield event;
    }
    throw new ApiError(response.status, "The stream ended before its end mark: the server may have gone.");
  }

  /** The same request for a terminal. */
  curl(request: CompletionRequest): string {
    const quote = (text: string) => `'${text.replace(/'/g, "'\\''")}'`;
    const key = this.key ? ` -H "Authorization: Bearer $PHOTON_API_KEY"` : "";
    const body = JSON.stringify({ ...request, stream: true });
    const url = new URL("v1/completions", document.baseURI);
    return `curl -N ${url}${key} -H 'Content-Type: application/json' -d ${quote(body)}`;
  }

  private get(path: string): Promise<Response> {
    return this.ask(path, { headers: this.headers() });
  }

  private post(path: string, body: unknown, signal: AbortSignal): Promise<Response> {
    const headers = { ...this.headers(), "Content-Type": "application/json" };
    return this.ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  }

  private headers(): Record<string, string> {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  }

  private async ask(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(path, init);
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError(0, "The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => null);
    const { message, code } = body?.error ?? {};
    throw new ApiError(response.status, message ?? `The server answered with status ${response.status}.`, code ?? null);
  }
}
