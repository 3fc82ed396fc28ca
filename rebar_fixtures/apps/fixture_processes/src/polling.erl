%% Waiting for a condition that sends no message when it becomes true.
-module(polling).
-export([until/2]).

-define(LOOK_AGAIN_MS, 2).

%% True as soon as IsSo() is true; false when TimeoutMs milliseconds pass first.
-spec until(fun(() -> boolean()), non_neg_integer()) -> boolean().
until(IsSo, TimeoutMs) -> before(IsSo, erlang:monotonic_time(millisecond) + TimeoutMs).

before(IsSo, Deadline) ->
    case IsSo() of
        true ->
            true;
        false ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true ->
                    timer:sleep(?LOOK_AGAIN_MS),
                    before(IsSo, Deadline);
                false ->
                    false
            end
    end.
